"""`python train_net.py` as its users call it."""

import json
from pathlib import Path

import pytest
import torch
from detectron2.engine import default_argument_parser

import train_net
from tests.helpers import DEMO_CONFIG, TINY, error_line, pairs, run

pytestmark = pytest.mark.slow

# Random models find nothing above the usual threshold; with this one there are boxes to compare.
SHORT = {**TINY, "SOLVER.MAX_ITER": 24, "MODEL.ATSS.SCORE_THRESH_TEST": 0.001}


def command(settings, *flags):
    return ["train_net.py", "--config-file", DEMO_CONFIG, *flags, *pairs(settings)]


def metrics(folder):
    return [json.loads(line) for line in (Path(folder) / "metrics.json").read_text().splitlines()]


@pytest.fixture
def trained(finished_run):
    return finished_run, (finished_run / "printed.txt").read_text()


def test_training_leaves_what_detectron2_does(trained):
    folder, printed = trained

    names = {path.name for path in folder.iterdir()}
    assert {"config.yaml", "log.txt", "metrics.json", "model_final.pth", "last_checkpoint", "inference"} <= names
    assert any(name.startswith("events.out.tfevents") for name in names), "TensorBoard"
    assert {"loss_cls", "loss_box", "loss_centerness", "bbox/AP50"} <= set().union(*metrics(folder))
    assert sum("bbox/AP" in row for row in metrics(folder)) == 2, "evaluated on the way and at the end"
    assert "eta:" in printed


def test_asked_for_cuda_it_says_once_that_there_is_none(trained):
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA GPU here")
    _, printed = trained

    assert printed.count("there is no CUDA GPU here: running on the CPU") == 1


def test_eval_only_gives_what_the_evaluation_at_the_end_of_training_gave(trained, shapes, tmp_path):
    folder, _ = trained
    settings = {**SHORT, **shapes, "OUTPUT_DIR": tmp_path, "MODEL.WEIGHTS": folder / "model_final.pth"}

    result = run(*command(settings, "--eval-only"))

    boxes = "inference/coco_instances_results.json"
    assert len(json.loads((tmp_path / boxes).read_text())) > 50
    assert (tmp_path / boxes).read_bytes() == (folder / boxes).read_bytes()
    ap = result.stdout.split("copypaste: AP,AP50,AP75,APs,APm,APl")[-1].split("copypaste: ")[1].split(",")[:2]
    last = metrics(folder)[-1]
    assert [float(x) for x in ap] == pytest.approx([last["bbox/AP"], last["bbox/AP50"]], abs=1e-4)


def test_validation_losses_stand_beside_those_of_training(trained):
    folder, _ = trained

    evaluated = [row for row in metrics(folder) if "bbox/AP" in row]
    for row in evaluated:
        parts = [row[f"validation/{name}"] for name in ("loss_cls", "loss_box", "loss_centerness")]
        assert row["validation/total_loss"] == pytest.approx(sum(parts))


def test_averaged_weights_best_checkpoint_and_early_end(shapes, tmp_path):
    """At a learning rate of nearly 0 no evaluation is better than the first; training ends two later."""
    settings = {**SHORT, **shapes, "OUTPUT_DIR": tmp_path, "TEST.EVAL_PERIOD": 4, "SOLVER.MAX_ITER": 100}
    extras = {"SOLVER.EMA_DECAY": 0.9, "TEST.KEEP_BEST": True, "SOLVER.EARLY_STOP": 2, "SOLVER.BASE_LR": 1e-12}
    trainer = train({**settings, **extras, "VIS_PERIOD": 4})

    assert trainer.iter + 1 < 100
    assert (tmp_path / "last_checkpoint").read_text() == "model_final.pth"
    saved = torch.load(tmp_path / "model_best.pth")
    average = saved["trainer"]["hooks"]["WeightAverage"]
    assert average["steps"] == saved["iteration"] + 1
    name = "backbone.bottom_up.stem.conv1.norm.running_mean"
    assert not torch.equal(average["weights"][name], saved["model"][name])
    boxes = "inference/coco_instances_results.json"
    again = {**SHORT, **shapes, "OUTPUT_DIR": tmp_path / "again", "MODEL.WEIGHTS": tmp_path / "model_final.pth"}
    train_net.main(default_argument_parser().parse_args(command(again, "--eval-only")[1:]))
    assert (tmp_path / boxes).read_bytes() == (tmp_path / "again" / boxes).read_bytes(), "evaluated were the averages"


def test_fine_tuning_for_other_classes(trained, coco_file, tmp_path):
    datasets = {"DATASETS.REGISTER": [["animals", *coco_file()]], "DATASETS.TRAIN": ("animals",), "DATASETS.TEST": "()"}
    settings = {**SHORT, **datasets, "OUTPUT_DIR": tmp_path / "out", "MODEL.WEIGHTS": trained[0] / "model_final.pth"}

    trainer = train({**settings, "SOLVER.MAX_ITER": 2, "SOLVER.BASE_LR": 0.0, "MODEL.ATSS.REMAKE_HEAD": True})

    theirs = torch.load(trained[0] / "model_final.pth")["model"]
    ours = trainer.model.state_dict()
    assert torch.equal(ours["head.box_deltas.weight"], theirs["head.box_deltas.weight"])
    assert ours["head.class_logits.weight"].shape[0] == 2


def test_resume_goes_on_where_training_stopped(shapes, tmp_path):
    settings = {**SHORT, **shapes, "OUTPUT_DIR": tmp_path, "DATASETS.TEST": "()", "SOLVER.MAX_ITER": 20}
    train(settings)
    first = torch.load(tmp_path / "model_final.pth")

    trainer = train({**settings, "SOLVER.MAX_ITER": 40}, "--resume")

    last = torch.load(tmp_path / "model_final.pth")
    assert (first["iteration"], trainer.start_iter, last["iteration"]) == (19, 20, 39)
    assert [m["iteration"] for m in metrics(tmp_path)] == [19, 39]
    steps = {int(state["step"]) for state in last["trainer"]["_trainer"]["optimizer"]["state"].values()}
    assert steps == {40}, "the optimizer went on, too"


def test_training_makes_the_loss_fall(shapes, tmp_path):
    """On a few images over and over."""
    train({**SHORT, **shapes, "OUTPUT_DIR": tmp_path, "DATASETS.TEST": "()", "SOLVER.MAX_ITER": 120})

    rows = metrics(tmp_path)
    assert rows[-1]["total_loss"] < 0.75 * rows[0]["total_loss"]
    assert rows[-1]["loss_cls"] < rows[0]["loss_cls"] and rows[-1]["loss_box"] < rows[0]["loss_box"]


def test_images_without_objects_alone_can_be_trained_on_beside_others(shapes, coco_file, tmp_path):
    """Batches of one image: every second one has no object."""

    def only_one(content):
        content["annotations"] = content["annotations"][:1]

    datasets = {"DATASETS.REGISTER": [["animals", *coco_file(only_one)]], "DATASETS.TRAIN": ("animals",)}
    settings = {**SHORT, **datasets, "DATASETS.TEST": "()", "OUTPUT_DIR": tmp_path / "out", "SOLVER.IMS_PER_BATCH": 1}
    train(settings)

    assert all(row["total_loss"] < 100 for row in metrics(tmp_path / "out"))


def train(settings, *flags):
    """Train in this process; returns the trainer."""
    trainers = []
    build = train_net.Trainer

    class Kept(build):
        def __init__(self, cfg):
            super().__init__(cfg)
            trainers.append(self)

    train_net.Trainer = Kept
    try:
        train_net.main(default_argument_parser().parse_args(command(settings, *flags)[1:]))
    finally:
        train_net.Trainer = build
    return trainers[0]


def refused(capsys, settings, *flags):
    """Standard error of a run in this process that must end with one line and exit status 1."""
    with pytest.raises(SystemExit) as caught:
        train_net.main(default_argument_parser().parse_args(command(settings, *flags)[1:]))
    assert caught.value.code == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    return lines[0]


@pytest.mark.parametrize(
    "settings, flags, named",
    [
        ({"MODEL.ATSS.TOPKK": 9}, [], ["MODEL.ATSS.TOPKK"]),
        ({"MODEL.ATSS.NUM_CLASSES": 80}, [], ["80", "6 classes"]),
        ({"DATASETS.REGISTER": [["tiny_train", "gone.json", "gone"]]}, [], ["gone.json"]),
        ({"MODEL.WEIGHTS": "gone.pth"}, [], ["gone.pth", "no such checkpoint"]),
        ({"MODEL.WEIGHTS": "README.md"}, ["--eval-only"], ["README.md", "not a checkpoint"]),
        ({}, ["--eval-only"], ["--eval-only", "MODEL.WEIGHTS"]),
    ],
)
def test_bad_input_gets_one_line_and_nothing_is_written(capsys, shapes, tmp_path, settings, flags, named):
    line = refused(capsys, {**SHORT, **shapes, "OUTPUT_DIR": tmp_path / "out", **settings}, *flags)

    assert all(part in line for part in named), line
    assert not (tmp_path / "out").exists()


def test_a_image_damaged_after_the_start_stops_training_with_one_line(shapes, coco_file, tmp_path):
    """From the command line, with workers: their traceback is not shown."""
    path, images = coco_file()
    (Path(images) / "1.png").write_bytes(b"no image")
    datasets = {"DATASETS.REGISTER": [["animals", path, images]], "DATASETS.TRAIN": ("animals",)}
    settings = {**SHORT, **datasets, "DATASETS.TEST": "()", "DATALOADER.NUM_WORKERS": 2, "OUTPUT_DIR": tmp_path / "out"}

    line = error_line(run(*command(settings), check=False))

    assert "1.png" in line and "cannot be read" in line
    assert not (tmp_path / "out/model_final.pth").exists()


def test_more_gpus_than_there_are_is_one_line(shapes):
    line = error_line(run(*command({**SHORT, **shapes}, "--num-gpus", "64"), check=False))

    assert "--num-gpus 64" in line
