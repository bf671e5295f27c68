"""`python tools/lazyconfig_train_net.py` as its users call it."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from detectron2.engine import default_argument_parser

import lazyconfig_train_net
import train_net
from atss.lazy import build, load_lazy_config
from conftest import DEMO_CONFIG, ROOT, TINY, error_line, pairs, run

TOOL = "tools/lazyconfig_train_net.py"
CONFIG = str(ROOT / "configs/lazy/atss_R_10_FPN_demo.py")
# `TINY` of conftest. Random models find nothing above the usual threshold; with this one there are boxes to compare.
SHORT = {
    "model.backbone.bottom_up.stem.out_channels": 8,
    "model.backbone.bottom_up.stages.out_channels": 8,
    "model.backbone.out_channels": 32,
    "model.head.num_convs": 1,
    "model.head.box_selector.score_threshold": 0.001,
    "dataloader.train.total_batch_size": 4,
    "train.device": "cpu",
    "train.seed": 1,
    "train.max_iter": 16,
}


def command(settings, *flags, config=CONFIG):
    return ["--config-file", str(config), *flags, *(f"{key}={value}" for key, value in settings.items())]


def train(settings, *flags, config=CONFIG):
    """Run the command in this process; what it returns."""
    return lazyconfig_train_net.main(default_argument_parser().parse_args(command(settings, *flags, config=config)))


def metrics(folder):
    return [json.loads(line) for line in (Path(folder) / "metrics.json").read_text().splitlines()]


@pytest.fixture(scope="module")
def data(shapes):
    """Two generated datasets: settings that register and use them."""
    return {
        "dataloader.register": shapes["DATASETS.REGISTER"],
        "dataloader.train.dataset.names": "tiny_train",
        "dataloader.test.dataset.names": "tiny_val",
    }


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    train({**SHORT, **data, "train.output_dir": folder, "train.eval_period": 8, "train.log_period": 1})
    return folder


def test_training_leaves_what_detectron2_does(trained):
    names = {path.name for path in trained.iterdir()}

    assert {"config.yaml", "log.txt", "metrics.json", "model_final.pth", "last_checkpoint", "inference"} <= names
    assert any(name.startswith("events.out.tfevents") for name in names), "TensorBoard"
    rows = metrics(trained)
    assert {"loss_cls", "loss_box", "loss_centerness", "lr", "bbox/AP50"} <= set().union(*rows)
    assert [row["iteration"] for row in rows if "total_loss" in row] == list(range(16))
    assert sum("bbox/AP" in row for row in rows) == 2, "evaluated on the way and at the end"


def test_the_config_that_training_leaves_evaluates_its_model(trained, tmp_path):
    settings = {"train.init_checkpoint": trained / "model_final.pth", "train.output_dir": tmp_path}

    results = train(settings, "--eval-only", config=trained / "config.yaml")

    boxes = "inference/coco_instances_results.json"
    assert len(json.loads((tmp_path / boxes).read_text())) > 50
    assert (tmp_path / boxes).read_bytes() == (trained / boxes).read_bytes()
    assert results["bbox"]["AP"] == pytest.approx(metrics(trained)[-1]["bbox/AP"], abs=1e-9)


def test_resume_goes_on_where_training_stopped(trained, data, tmp_path):
    folder = shutil.copytree(trained, tmp_path / "resumed")
    settings = {**SHORT, **data, "train.output_dir": folder, "train.max_iter": 20, "train.log_period": 1}

    train(settings, "--resume")

    last = torch.load(folder / "model_final.pth")
    assert [row["iteration"] for row in metrics(folder) if "total_loss" in row] == list(range(20))
    assert last["iteration"] == 19
    steps = {int(state["step"]) for state in last["trainer"]["optimizer"]["state"].values()}
    assert steps == {20}, "the optimizer went on, too"
    scheduler = build(load_lazy_config(CONFIG), "lr_multiplier")
    rates = [row["lr"] for row in metrics(folder) if "lr" in row]
    assert rates[16:] == pytest.approx([0.0025 * scheduler(i / 20) for i in range(16, 20)])
    assert train(settings, "--resume", "--eval-only")["bbox"]["AP"] == pytest.approx(metrics(folder)[-1]["bbox/AP"])


def test_it_trains_as_train_net_does_with_the_yaml_config(coco_file, tmp_path):
    """To the same weights, bit by bit; on one picture, because Detectron2's versions shuffle in different ways."""

    def only_one(content):
        content["images"], content["annotations"] = content["images"][:1], content["annotations"][:1]

    entries = [["one", *coco_file(only_one)]]
    yaml = {
        **TINY, "DATASETS.REGISTER": entries, "DATASETS.TRAIN": ("one",), "DATASETS.TEST": "()",
        "SOLVER.IMS_PER_BATCH": 1, "SOLVER.MAX_ITER": 10, "INPUT.RANDOM_FLIP": "none", "OUTPUT_DIR": tmp_path / "yaml",
    }  # fmt: skip
    train_net.main(default_argument_parser().parse_args(["--config-file", DEMO_CONFIG, *pairs(yaml)]))
    train(
        {
            **SHORT,
            "dataloader.register": entries,
            "dataloader.train.dataset.names": "one",
            "dataloader.train.total_batch_size": 1,
            "+dataloader.train.mapper.augmentations.1.prob": 0.0,
            "dataloader.evaluator": "null",
            "model.head.num_classes": 2,
            "lr_multiplier.warmup_length": 0.5,
            "train.max_iter": 10,
            "train.output_dir": tmp_path / "lazy",
        }
    )

    ours, theirs = (torch.load(tmp_path / name / "model_final.pth")["model"] for name in ("lazy", "yaml"))
    assert ours.keys() == theirs.keys() and all(torch.equal(weight, theirs[key]) for key, weight in ours.items())
    ours, theirs = (metrics(tmp_path / name)[-1] for name in ("lazy", "yaml"))
    same = ("iteration", "total_loss", "loss_cls", "loss_box", "loss_centerness", "lr")
    assert [ours[key] for key in same] == [theirs[key] for key in same]


def test_a_config_of_ones_own_beside_the_others(coco_file, tmp_path):
    """As the tool's help shows it, with another model and dataset."""
    folder = shutil.copytree(Path(CONFIG).parent, tmp_path / "lazy")
    text = lazyconfig_train_net.__doc__.split("COCO's format:")[1].replace("\n    ", "\n")
    path, pictures = coco_file()
    for old, new in (
        ("atss_R_50_FPN_1x", "atss_R_10_FPN_demo"),
        ('"cells.json", "pictures"', f'"{path}", "{pictures}"'),
        ('"cells_val.json", "pictures"', f'"{path}", "{pictures}"'),
        ("num_classes = 3", "num_classes = 2"),
    ):
        assert old in text
        text = text.replace(old, new)
    (folder / "mine.py").write_text(text)

    train({**SHORT, "train.max_iter": 2, "train.output_dir": tmp_path / "out"}, config=folder / "mine.py")

    assert {"bbox/AP-cat", "bbox/AP-dog"} <= metrics(tmp_path / "out")[-1].keys()


def test_fine_tuning_with_a_new_head(trained, coco_file, tmp_path):
    entries = [["animals", *coco_file()]]
    settings = {
        **SHORT,
        "dataloader.register": entries,
        "dataloader.train.dataset.names": "animals",
        "dataloader.train.total_batch_size": 1,
        "dataloader.evaluator": "null",
        "model.head.num_classes": 2,
        "train.init_checkpoint": trained / "model_final.pth",
        "train.max_iter": 1,
        "train.remake_head": True,
        "train.output_dir": tmp_path,
    }

    train(settings)

    before, after = (torch.load(folder / "model_final.pth")["model"] for folder in (trained, tmp_path))
    assert after["head.class_logits.bias"].shape == (2,)
    for key in ("backbone.fpn_output3.weight", "head.box_deltas.weight"):
        torch.testing.assert_close(after[key], before[key], rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    "settings, flags, named",
    [
        ({"train.max_iterr": 9}, [], ["train.max_iterr"]),
        ({"model.head.num_classes": 80}, [], ["model.head.num_classes is 80", "6 classes"]),
        ({"model.head.assigner.topk": 0}, [], ["model", "topk"]),
        ({"dataloader.train.dataset.names": "unknown"}, [], ["unknown", "dataloader.register"]),
        ({"dataloader.register": [["tiny_train", "gone.json", "gone"]]}, [], ["gone.json"]),
        ({"train.init_checkpoint": "gone.pth"}, [], ["gone.pth", "no such checkpoint", "train.init_checkpoint"]),
        ({"train.init_checkpoint": "README.md"}, ["--eval-only"], ["README.md", "not a checkpoint"]),
        ({}, ["--eval-only"], ["--eval-only", "train.init_checkpoint"]),
        ({"dataloader.evaluator": "null"}, ["--eval-only"], ["dataloader.evaluator"]),
    ],
)
def test_bad_input_gets_one_line_and_nothing_is_written(capsys, data, tmp_path, settings, flags, named):
    settings = {**SHORT, **data, "train.output_dir": tmp_path / "out", **settings}
    with pytest.raises(SystemExit) as caught:
        train(settings, *flags)

    assert caught.value.code == 1
    (line,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("error: "))
    assert all(part in line for part in named), line
    assert not (tmp_path / "out").exists()


def test_more_gpus_than_there_are_is_one_line():
    assert "--num-gpus 64" in error_line(run(TOOL, "--num-gpus", "64", "--config-file", CONFIG, check=False))


def test_a_picture_damaged_after_the_start_stops_training_with_one_line(coco_file, tmp_path):
    """From the command line, with workers: their traceback is not shown. That there is no GPU is said once."""
    path, pictures = coco_file()
    (Path(pictures) / "1.png").write_bytes(b"no picture")
    settings = {
        **SHORT,
        "dataloader.register": [["animals", path, pictures]],
        "dataloader.train.dataset.names": "animals",
        "dataloader.train.num_workers": 2,
        "dataloader.evaluator": "null",
        "model.head.num_classes": 2,
        "train.output_dir": tmp_path / "out",
        "train.device": "cuda",
    }

    result = run(TOOL, *command(settings), check=False)

    line = error_line(result)
    assert "1.png" in line and "cannot be read" in line
    if not torch.cuda.is_available():
        assert (result.stdout + result.stderr).count("there is no CUDA GPU here: running on the CPU") == 1
