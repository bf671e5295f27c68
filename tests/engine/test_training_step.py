"""A training step that does not change the weights if something fails."""

import os

import pytest
import torch
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from torch import nn

from atss.engine.training_step import TrainingStep
from atss.errors import InputError
from tests.helpers import pairs, paper_config


class Model(nn.Module):
    """Its loss depends on the image's file name. A step with learning rate 0.1 subtracts 0.3 from all weights."""

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
    """Function: images or their names, numbers of config -> a step with a batch per image; its `run` trains on all."""

    def make(images, max_skipped=0, max_unreadable=0, **options):
        batches = [[image(name) if isinstance(name, str) else name] for name in images]
        cfg = paper_config()
        settings = {"SOLVER.MAX_SKIPPED_BATCHES": max_skipped, "DATALOADER.MAX_UNREADABLE": max_unreadable}
        cfg.merge_from_list(pairs({**settings, "OUTPUT_DIR": tmp_path}))
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


def assert_steps(step, number):
    """Assert that the weights have changed `number` times."""
    assert torch.allclose(step.model.weight, torch.full((3,), 1 - 0.3 * number))


def warnings(caplog):
    return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


def test_a_step_changes_the_weights_and_stores_the_losses(training):
    step = training(["a.png", "b.png"])

    storage = step.run()

    assert_steps(step, 2)
    latest = {name: value for name, (value, _) in storage.latest().items()}
    assert latest.keys() == {"data_time", "total_loss", "loss_cls", "loss_box"}
    assert latest["total_loss"] == pytest.approx(latest["loss_cls"] + latest["loss_box"]) == pytest.approx(3 * 2.1)


@pytest.mark.parametrize("name, value", [("nan.png", "loss_cls nan"), ("steep.png", "gradient inf")])
def test_training_ends_before_a_gradient_that_is_not_finite_changes_the_weights(training, tmp_path, name, value):
    step = training(["a.png", name])

    with pytest.raises(InputError) as caught:
        step.run()

    message = str(caught.value)
    assert "iteration 1: the loss or its gradient is not finite" in message and value in message
    assert name in message and "SOLVER.MAX_SKIPPED_BATCHES" in message and "\n" not in message
    assert_steps(step, 1)
    (kept,) = (tmp_path / "skipped_batches").iterdir()
    saved = torch.load(kept, weights_only=True)
    assert saved["batch"][0]["file_name"] == name and saved["batch"][0]["boxes"].tolist() == [[0, 1, 2, 3]]
    assert saved["batch"][0]["image"].shape == (3, 4, 5)


def test_as_many_batches_as_allowed_are_skipped(training, caplog):
    step = training(["a.png", "nan.png", "a.png", "steep.png", "a.png"], max_skipped=2)

    storage = step.run()

    assert_steps(step, 3)
    assert step.skipped == 2 == step.state_dict()["skipped_batches"]
    assert all(value[0] == value[0] for value in storage.latest().values()), "no NaN in the curves"
    assert len(warnings(caplog)) == 2 and warnings(caplog)[1].endswith("The batch is skipped (2 so far).")


def test_a_resumed_run_counts_the_batches_skipped_before(training):
    first, second = training(["nan.png"], max_skipped=1), training(["a.png", "nan.png"], max_skipped=1)
    first.run()
    state = first.state_dict()
    second.load_state_dict(state)

    with pytest.raises(InputError, match="iteration 1"):
        second.run()
    del state["skipped_batches"]
    second.load_state_dict(state)
    assert second.skipped == 0, "an old checkpoint does not have their number"


def test_a_batch_for_which_memory_does_not_suffice(training):
    step = training(["a.png", "large.png", "a.png"], max_skipped=1)
    step.run()
    assert_steps(step, 2)

    with pytest.raises(InputError, match=r"memory does not suffice for large\.png \(5 x 4, 1 objects\).*IMS_PER_BATCH"):
        training(["large.png"]).run()


def test_a_restarted_run_skips_a_batch_that_was_too_large_for_one_of_several_processes(training, tmp_path, monkeypatch):
    """The others wait for the gradient of that process, so the whole run ends."""
    with monkeypatch.context() as patch:
        patch.setattr("atss.engine.training_step.comm.get_world_size", lambda: 2)
        patch.setattr("atss.engine.training_step.comm.all_gather", lambda report: [report])
        with pytest.raises(InputError, match=r"iteration 1, process 0: memory does not suffice.*--resume"):
            training(["a.png", "large.png"]).run()
    assert (tmp_path / "skipped_batches/out_of_memory.txt").read_text() == "1\n"

    again = training(["a.png", "large.png", "a.png"], max_skipped=1)
    again.run()

    assert again.skipped == 1
    assert_steps(again, 2)
    again.forget_out_of_memory()
    assert os.listdir(tmp_path / "skipped_batches") == []


def test_unreadable_images_are_counted_by_name(training, caplog):
    def with_unusable(*names):
        return image("a.png", unusable=[(name, f"{name}: the image cannot be read") for name in names])

    step = training([with_unusable("x.png"), with_unusable("x.png", "y.png"), with_unusable("z.png")], max_unreadable=2)

    with pytest.raises(InputError, match=r"z\.png: the image cannot be read; 3 images.*MAX_UNREADABLE 2"):
        step.run()

    assert [line.split(":")[0] for line in warnings(caplog)] == ["x.png", "y.png", "z.png"]


def test_a_stop_signal_is_kept(training):
    step = training(["a.png", "a.png", "a.png"], stop_signal_here=iter([None, "SIGUSR1", None]).__next__)

    step.run()

    assert step.stop_signal == "SIGUSR1"


def test_training_continues_if_a_skipped_batch_cannot_be_written(training, tmp_path, caplog):
    (tmp_path / "skipped_batches/.iteration_0000000_process_0.pth.draft").mkdir(parents=True)

    training(["nan.png"], max_skipped=1).run()

    assert any("cannot be written" in message for message in warnings(caplog))
