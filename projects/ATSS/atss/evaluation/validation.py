"""Losses on the test images."""

import torch
from detectron2.evaluation.evaluator import inference_context
from detectron2.utils import comm


@torch.no_grad()
def validation_losses(model, loader):
    """Average the losses over the images of a loader, with the model in evaluation mode.

    Args:
        model: an `ATSS`, not wrapped for several processes.
        loader: batches with ground truth, the same number in every process.

    Returns:
        dict of floats with the keys of the training losses and `total_loss`; empty if there is no image.
    """
    totals, num_images = {}, 0
    with inference_context(model):
        for batch in loader:
            num_images += len(batch)
            for name, loss in model.losses(batch).items():
                totals[name] = totals.get(name, 0) + loss * len(batch)
    if not num_images:
        return {}
    by_process = comm.all_gather({name: float(total) / num_images for name, total in totals.items()})
    means = {name: sum(losses[name] for losses in by_process) / len(by_process) for name in totals}
    return {"total_loss": sum(means.values()), **means}
