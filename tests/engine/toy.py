"""A model of three weights, whose losses depend on the names of its images, and its training."""

import torch
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from torch import nn

from atss.engine.training_step import TrainingStep
from tests.helpers import pairs, paper_config


class Model(nn.Module):
    """Its loss depends on the image's file name. A step with learning rate 0.1 subtracts 0.3 from all weights."""

    def __init__(self, device):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3, device=device))

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


class Loader(list):
    """Batches, in order; an older one again."""

    batch = list.__getitem__


def make_step(folder, images, settings=None, *, optimizer=torch.optim.SGD, device="cpu", **options):
    """A step with a batch per image, given by name or as a dict, and one iteration per batch."""
    cfg = paper_config()
    cfg.merge_from_list(pairs({"OUTPUT_DIR": folder, "SOLVER.MAX_ITER": len(images), **(settings or {})}))
    model = Model(device)
    batches = Loader([image(name) if isinstance(name, str) else name] for name in images)
    return TrainingStep(cfg, model, batches, optimizer(model.parameters(), 0.1, fused=True), **options)


def train(step, first=0, last=None):
    """Train from iteration `first` to before `last`; the storage."""
    last = step.num_iterations if last is None else last
    with EventStorage(first) as storage:
        for iteration in range(first, last):
            step.iter = storage.iter = iteration
            step.run_step()
    return storage
