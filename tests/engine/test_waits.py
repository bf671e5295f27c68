"""The host does not wait for the device in a training step."""

import pytest
import torch
from detectron2.structures import Boxes, ImageList, Instances
from detectron2.utils.events import EventStorage
from torch._subclasses.fake_tensor import DataDependentOutputException

from atss import ATSS
from atss.engine.hooks import WeightAverage
from atss.engine.training_step import TrainingStep
from tests.engine.toy import make_step, train
from tests.waits import Waits, fake_gpu


@pytest.fixture
def step_on_fake_gpu(tmp_path, monkeypatch):
    """A step on a GPU whose tensors have no values; the backward pass needs a real one."""

    def backward(step, batch):
        losses = step.model(batch)
        step.grad_scaler.scale(losses["loss_cls"])
        step.model.weight.grad = torch.ones_like(step.model.weight)
        return {name: loss.detach() for name, loss in losses.items()}

    monkeypatch.setattr(TrainingStep, "_backward", backward)

    def make(optimizer, amp):
        return make_step(tmp_path, ["a.png"] * 60, {"SOLVER.AMP.ENABLED": amp}, optimizer=optimizer, device="cuda")

    return make


def test_what_counts_as_waiting():
    with fake_gpu(), Waits() as waits:
        on_gpu, on_host = torch.ones(2, device="cuda"), torch.ones(2)
        on_host.to("cuda", non_blocking=True)
        assert waits.names == []

        on_host.to("cuda"), on_gpu.cpu(), on_gpu.copy_(on_host)
        with pytest.raises(DataDependentOutputException):
            on_gpu.sum().item()

    assert waits.names == ["cpu -> cuda", "cuda -> cpu", "cpu -> cuda"]


@pytest.mark.parametrize("amp", [False, True], ids=["float32", "float16"])
@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.AdamW])
def test_a_step_on_a_gpu_does_not_wait_and_a_reading_waits_once(step_on_fake_gpu, monkeypatch, optimizer, amp):
    monkeypatch.setattr("torch.cuda.amp.common.amp_definitely_not_available", lambda: False)
    with fake_gpu():
        step = step_on_fake_gpu(optimizer, amp)
        assert step.grad_scaler.is_enabled() == amp
        with monkeypatch.context() as patch:
            patch.setattr("copy.deepcopy", lambda model: type(model)("cuda"))
            average = WeightAverage(step.model, 0.9)
        with Waits() as waits:
            for first in range(19):
                train(step, first, first + 1)
                average.after_step()
        assert waits.names == []

        with Waits() as waits, pytest.raises(DataDependentOutputException):  # the values, now on the host
            train(step, 19, 20)
        assert waits.names == ["cuda -> cpu"], "of all twenty iterations"


def test_images_and_ground_truth_are_copied_to_a_gpu_without_waiting(tiny_config, monkeypatch):
    objects = Instances((64, 96), gt_boxes=Boxes(torch.ones(2, 4)), gt_classes=torch.ones(2, dtype=torch.int64))
    image = {"image": torch.ones(3, 64, 96, dtype=torch.uint8), "instances": objects, "ignore_boxes": torch.ones(1, 4)}
    given = []
    # Detectron2 computes the size of a batch with tensors on the host, whose values are needed.
    batched = lambda images, divisibility: ImageList(torch.stack(images), [(64, 96)] * len(images))  # noqa: E731
    monkeypatch.setattr(ImageList, "from_tensors", batched)
    with fake_gpu() as mode, EventStorage():
        mode.allow_non_fake_inputs = True
        with torch.device("cuda"):
            model = ATSS(tiny_config()).train()
        monkeypatch.setattr(model.head, "losses", lambda *arguments: given.append(arguments))
        with Waits() as waits:
            model([image, image])

    assert waits.names == []
    _, predictions, gt_boxes, gt_classes, ignore_boxes = given[0]
    devices = {x.device.type for x in (*predictions.logits, *gt_boxes, *gt_classes, *ignore_boxes)}
    assert devices == {"cuda"}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("precision", [None, "float16", "bfloat16"])
def test_iterations_of_the_trainer_on_a_gpu_do_not_wait_between_readings(tiny_config, tmp_path, precision):
    """With hooks, data loading and the whole model, after the iterations in which kernels are compiled."""
    from atss.engine import Trainer

    settings = {"OUTPUT_DIR": tmp_path, "MODEL.DEVICE": "cuda", "SOLVER.EMA_DECAY": 0.9, "SOLVER.MAX_ITER": 60}
    amp = {"SOLVER.AMP.ENABLED": True, "SOLVER.AMP.PRECISION": precision} if precision else {}
    trainer = Trainer(tiny_config({**settings, **amp}))
    try:
        with EventStorage(0) as trainer.storage:
            trainer.before_train()
            for trainer.iter in range(39):
                torch.cuda.set_sync_debug_mode("error" if trainer.iter >= 20 else "default")
                trainer.before_step()
                trainer.run_step()
                trainer.after_step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert trainer._trainer.skipped == 0
