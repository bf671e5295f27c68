"""`python train_net.py` as its users call it."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from tests.helpers import SHORT, error_line, pairs, run_forked, train, train_command

pytestmark = pytest.mark.slow

DETECTIONS = "inference/coco_instances_results.json"


def metrics(folder):
    return [json.loads(line) for line in (Path(folder) / "metrics.json").read_text().splitlines()]


def test_training_writes_what_detectron2_does_and_validation_losses(finished_run):
    names = {path.name for path in finished_run.iterdir()}
    assert {"config.yaml", "log.txt", "metrics.json", "model_final.pth", "last_checkpoint", "inference"} <= names
    assert any(name.startswith("events.out.tfevents") for name in names), "TensorBoard"
    rows = metrics(finished_run)
    assert {"loss_cls", "loss_box", "loss_centerness", "bbox/AP50"} <= set().union(*rows)
    evaluated = [row for row in rows if "bbox/AP" in row]
    assert len(evaluated) == 2, "evaluated on the way and at the end"
    for row in evaluated:
        parts = [row[f"validation/{name}"] for name in ("loss_cls", "loss_box", "loss_centerness")]
        assert row["validation/total_loss"] == pytest.approx(sum(parts))
    assert "eta:" in (finished_run / "printed.txt").read_text()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA GPU here")
def test_one_warning_if_there_is_no_gpu(finished_run):
    assert (finished_run / "printed.txt").read_text().count("there is no CUDA GPU here: running on the CPU") == 1


def test_eval_only_gives_the_results_of_the_evaluation_after_training(finished_run, shapes, tmp_path):
    settings = {**SHORT, **shapes, "OUTPUT_DIR": tmp_path, "MODEL.WEIGHTS": finished_run / "model_final.pth"}

    result = run_forked(*train_command(settings, "--eval-only"))

    assert len(json.loads((tmp_path / DETECTIONS).read_text())) > 50
    assert (tmp_path / DETECTIONS).read_bytes() == (finished_run / DETECTIONS).read_bytes()
    ap = result.stdout.split("copypaste: AP,AP50,AP75,APs,APm,APl")[-1].split("copypaste: ")[1].split(",")[:2]
    last = metrics(finished_run)[-1]
    assert [float(x) for x in ap] == pytest.approx([last["bbox/AP"], last["bbox/AP50"]], abs=1e-4)


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
    again = {**SHORT, **shapes, "OUTPUT_DIR": tmp_path / "again", "MODEL.WEIGHTS": tmp_path / "model_final.pth"}
    train(again, "--eval-only")
    assert (tmp_path / DETECTIONS).read_bytes() == (tmp_path / "again" / DETECTIONS).read_bytes(), "of the averages"


@pytest.fixture
def animals(coco_file, tmp_path):
    """Function: changes to a small COCO-format content -> settings that train on it."""

    def make(change=lambda content: None):
        names = {"DATASETS.TRAIN": ("animals",), "DATASETS.TEST": "()"}
        return {
            **SHORT,
            **names,
            "DATASETS.REGISTER": [["animals", *coco_file(change)]],
            "OUTPUT_DIR": tmp_path / "out",
        }

    return make


def test_fine_tuning_for_other_classes(finished_run, animals):
    weights = finished_run / "model_final.pth"
    settings = {**animals(), "MODEL.WEIGHTS": weights, "MODEL.ATSS.REMAKE_HEAD": True}

    trainer = train({**settings, "SOLVER.MAX_ITER": 2, "SOLVER.BASE_LR": 0.0})

    old, new = torch.load(weights)["model"], trainer.model.state_dict()
    assert torch.equal(new["head.box_deltas.weight"], old["head.box_deltas.weight"])
    assert new["head.class_logits.weight"].shape[0] == 2


def test_resume_continues_iterations_and_optimizer(finished_run, shapes, tmp_path):
    folder = shutil.copytree(finished_run, tmp_path / "out")
    first = torch.load(folder / "model_final.pth")
    before = metrics(folder)

    settings = {**SHORT, **shapes, "OUTPUT_DIR": folder, "DATASETS.TEST": "()"}
    trainer = train({**settings, "SOLVER.MAX_ITER": 28}, "--resume")

    last = torch.load(folder / "model_final.pth")
    assert (first["iteration"], trainer.start_iter, last["iteration"]) == (23, 24, 27)
    assert metrics(folder)[:-1] == before and metrics(folder)[-1]["iteration"] == 27
    steps = {int(state["step"]) for state in last["trainer"]["_trainer"]["optimizer"]["state"].values()}
    assert steps == {28}, "the optimizer went on, too"


def test_training_reduces_the_losses(shapes, tmp_path):
    """On a few images over and over."""
    train({**SHORT, **shapes, "OUTPUT_DIR": tmp_path, "DATASETS.TEST": "()", "SOLVER.MAX_ITER": 120})

    rows = metrics(tmp_path)
    assert rows[-1]["total_loss"] < 0.75 * rows[0]["total_loss"]
    assert rows[-1]["loss_cls"] < rows[0]["loss_cls"] and rows[-1]["loss_box"] < rows[0]["loss_box"]


def test_training_on_batches_without_objects(animals, tmp_path):
    """Batches of one image; two of three images have no object."""
    only_one = animals(lambda content: content.update(annotations=content["annotations"][:1]))
    train({**only_one, "SOLVER.IMS_PER_BATCH": 1})

    assert all(row["total_loss"] < 100 for row in metrics(tmp_path / "out"))


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
    with pytest.raises(SystemExit, match=r"^1$"):
        train({**SHORT, **shapes, "OUTPUT_DIR": tmp_path / "out", **settings}, *flags)

    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert all(part in line for part in named), line
    assert not (tmp_path / "out").exists()


def test_an_unreadable_image_stops_training_with_one_line(animals, tmp_path):
    """From the command line, with workers: their traceback is not shown."""
    settings = {**animals(), "DATALOADER.NUM_WORKERS": 2}
    (tmp_path / "images/1.png").write_bytes(b"no image")

    line = error_line(run_forked(*train_command(settings), check=False))

    assert "1.png" in line and "cannot be read" in line
    assert not (tmp_path / "out/model_final.pth").exists()


def test_a_config_of_the_project_is_found_by_its_name(shapes, tmp_path):
    settings = {**SHORT, **shapes, "SOLVER.MAX_ITER": 1, "OUTPUT_DIR": tmp_path, "DATASETS.TEST": "()"}

    run_forked("train_net.py", "--config-file", "atss_R_10_FPN_demo.yaml", *pairs(settings))

    assert (tmp_path / "model_final.pth").exists()


def test_more_gpus_than_there_are_gets_one_line(shapes):
    line = error_line(run_forked(*train_command({**SHORT, **shapes}, "--num-gpus", "64"), check=False))

    assert "--num-gpus 64" in line
