"""What tests run in processes of their own; these import it by name."""

import logging

import torch

from atss.modeling.losses import normalizers
from tests.engine.toy import image, make_step, train


def normalizers_of_process(rank, world_size, store, positives, results):
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world_size)
    results[rank] = normalizers(torch.tensor([1.0, 0.5, 1.0]) * positives[rank]).tolist()
    torch.distributed.destroy_process_group()


def train_in_process(rank, world_size, store, output, results):
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world_size)
    warnings = []
    logging.getLogger("atss.engine.training_step").addFilter(lambda record: warnings.append(record.getMessage()))
    gone = image("a.png", unusable=[("gone.png", "gone.png: cannot be read")])
    images = [["a.png", "a.png", gone, "a.png", "a.png"], ["a.png", "nan.png", "a.png", "a.png", "a.png"]][rank]
    signals = [[None] * 4, [None, None, None, "SIGTERM"]][rank]
    limits = {"SOLVER.MAX_SKIPPED_BATCHES": 1, "DATALOADER.MAX_UNREADABLE": 1}
    step = make_step(output, images, limits, stop_signal_here=iter(signals).__next__)
    # In place of DistributedDataParallel, which averages the gradients.
    step.model.weight.register_hook(lambda gradient: averaged(gradient, world_size))
    storage = train(step, last=4)
    stored = storage.history("loss_cls").values() if "loss_cls" in storage.histories() else []
    results[rank] = {
        "weights": step.model.weight.tolist(),
        "skipped": step.skipped,
        "unreadable": step.unreadable,
        "stop_signal": step.stop_signal,
        "losses": {iteration: value for value, iteration in stored},
        "warnings": " ".join(warnings),
    }
    torch.distributed.destroy_process_group()


def averaged(gradient, world_size):
    gradient = gradient.clone()
    torch.distributed.all_reduce(gradient)
    return gradient / world_size
