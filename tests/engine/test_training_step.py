"""A step that leaves the weights alone where something went wrong."""

import os
from pathlib import Path

import pytest
import torch
from detectron2.config import get_cfg
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from torch import nn

from atss import add_atss_config
from atss.engine.training_step import TrainingStep
from atss.errors import InputError
from tests.helpers import pairs


class Model(nn.Module):
    """Its loss is what an image's file name asks for."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))

    def forward(self, batch):
        name = batch[0]["file_name"]
        loss = self.weight.sum()
        if name == "nan.png":
            loss = loss * torch.nan
        if name == "steep.png":  # finite, unlike its gradient
            loss = (self.weight - self.weight.detach()).sum().sqrt()
        if name == "large.png":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.00 GiB")
        return {"loss_cls": loss, "loss_box": 2 * loss}


def image(name, **others):
    objects = Instances((4, 5), gt_boxes=Boxes(torch.tensor([[0.0, 1, 2, 3]])), gt_classes=torch.tensor([1]))
    return {"file_name": name, "image": torch.zeros(3, 4, 5, dtype=torch.uint8), "instances": objects, **others}


@pytest.fixture
def training(tmp_path):
    """Function: names of images, settings -> a step with a batch for each name, all of which are trained on."""

    def make(names, settings=None, **options):
        batches = [[image(name) if isinstance(name, str) else name] for name in names]
        cfg = get_cfg()
        add_atss_config(cfg)
        cfg.merge_from_list(["OUTPUT_DIR", str(tmp_path), *pairs(settings or {})])
        model = Model()
        step = TrainingStep(cfg, model, batches, torch.optim.SGD(model.parameters(), 0.1), **options)
        step.run = lambda: run(step, len(batches))
        return step

    return make


def run(step, number):
    with EventStorage(0) as storage:
        for step.iter in range(number):
            storage.iter = step.iter
            step.run_step()
    return storage


def test_it_steps_and_notes_losses_as_detectron2_does(training):
    step = training(["a.png", "b.png"])

    storage = step.run()

    assert torch.allclose(step.model.weight, torch.full((3,), 1 - 2 * 0.3))
    latest = {name: value for name, (value, _) in storage.latest().items()}
    assert latest.keys() == {"data_time", "total_loss", "loss_cls", "loss_box"}
    assert latest["total_loss"] == pytest.approx(latest["loss_cls"] + latest["loss_box"]) == pytest.approx(3 * 2.1)


@pytest.mark.parametrize("name, said", [("nan.png", "loss_cls nan"), ("steep.png", "gradient inf")])
def test_a_loss_or_gradient_that_is_not_finite_ends_training_before_the_weights_change(training, tmp_path, name, said):
    step = training(["a.png", name])

    with pytest.raises(InputError) as caught:
        step.run()

    message = str(caught.value)
    assert "iteration 1: the loss or its gradient is not finite" in message and said in message
    assert name in message and "SOLVER.MAX_SKIPPED_BATCHES" in message and "\n" not in message
    assert torch.allclose(step.model.weight, torch.full((3,), 0.7))
    (kept,) = (tmp_path / "skipped_batches").iterdir()
    saved = torch.load(kept, weights_only=True)
    assert saved["batch"][0]["file_name"] == name and saved["batch"][0]["boxes"].tolist() == [[0, 1, 2, 3]]
    assert saved["batch"][0]["image"].shape == (3, 4, 5)


def test_as_many_as_allowed_are_skipped(training, caplog):
    step = training(["a.png", "nan.png", "a.png", "steep.png", "a.png"], {"SOLVER.MAX_SKIPPED_BATCHES": 2})

    storage = step.run()

    assert torch.allclose(step.model.weight, torch.full((3,), 1 - 3 * 0.3))
    assert step.skipped == 2 == step.state_dict()["skipped_batches"]
    assert all(value[0] == value[0] for value in storage.latest().values()), "no NaN in the curves"
    warnings = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert len(warnings) == 2 and warnings[1].endswith("The batch is skipped (2 so far).")


def test_one_more_than_allowed_ends_training_also_when_it_was_resumed(training):
    first = training(["nan.png"], {"SOLVER.MAX_SKIPPED_BATCHES": 1})
    first.run()
    second = training(["a.png", "nan.png"], {"SOLVER.MAX_SKIPPED_BATCHES": 1})
    second.load_state_dict(first.state_dict())

    with pytest.raises(InputError, match="iteration 1"):
        second.run()


def test_a_checkpoint_from_before_there_was_a_count(training):
    step = training(["a.png"])
    state = step.state_dict()
    del state["skipped_batches"]

    step.load_state_dict(state)

    assert step.skipped == 0


def test_a_batch_for_which_memory_does_not_suffice(training):
    step = training(["a.png", "large.png", "a.png"], {"SOLVER.MAX_SKIPPED_BATCHES": 1})
    step.run()
    assert torch.allclose(step.model.weight, torch.full((3,), 1 - 2 * 0.3))

    with pytest.raises(InputError, match=r"memory does not suffice for large\.png \(5 x 4, 1 objects\).*IMS_PER_BATCH"):
        training(["large.png"]).run()


def test_started_again_the_run_leaves_out_what_was_too_large_for_several_processes(training, tmp_path, monkeypatch):
    """The others wait for the gradient of the one: all end, and remember where."""
    monkeypatch.setattr("atss.engine.training_step.comm.get_world_size", lambda: 2)
    monkeypatch.setattr("atss.engine.training_step.comm.all_gather", lambda known: [known])
    with pytest.raises(InputError, match=r"iteration 1, process 0: memory does not suffice.*--resume"):
        training(["a.png", "large.png"]).run()
    assert (tmp_path / "skipped_batches/out_of_memory.txt").read_text() == "1\n"
    monkeypatch.undo()

    again = training(["a.png", "large.png", "a.png"], {"SOLVER.MAX_SKIPPED_BATCHES": 1})
    again.run()

    assert again.skipped == 1 and torch.allclose(again.model.weight, torch.full((3,), 1 - 2 * 0.3))
    again.forget_out_of_memory()
    assert os.listdir(tmp_path / "skipped_batches") == []


def test_unreadable_images_are_counted_by_name(training, caplog):
    def with_unusable(*names):
        return image("a.png", unusable=[(name, f"{name}: the image cannot be read") for name in names])

    step = training(
        [with_unusable("x.png"), with_unusable("x.png", "y.png"), with_unusable("z.png")],
        {"DATALOADER.MAX_UNREADABLE": 2},
    )

    with pytest.raises(InputError, match=r"z\.png: the image cannot be read; 3 images.*MAX_UNREADABLE 2"):
        step.run()

    told = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert [line.split(":")[0] for line in told] == ["x.png", "y.png", "z.png"]


def test_a_notice_is_known_to_all_after_the_step(training):
    received = iter([None, "SIGUSR1", None])
    step = training(["a.png", "a.png", "a.png"], stop_signal_here=lambda: next(received))

    step.run()

    assert step.stop_signal == "SIGUSR1"


def test_batches_that_cannot_be_kept_do_not_end_training(training, tmp_path, caplog):
    Path(tmp_path / "skipped_batches").mkdir()
    Path(tmp_path / "skipped_batches/.iteration_0000000_process_0.pth.draft").mkdir()

    training(["nan.png"], {"SOLVER.MAX_SKIPPED_BATCHES": 1}).run()

    assert any("cannot be written" in r.getMessage() for r in caplog.records)
