"""The losses on images that are not trained on."""

import torch
from detectron2.evaluation.evaluator import inference_context
from detectron2.utils import comm


@torch.no_grad()
def validation_losses(model, loader):
    """The means of the losses over the images of a loader, with the model as at inference.

    Args:
        model: an `ATSS`, without a wrapper for several processes.
        loader: batches with their objects, as many in every process.

    Returns:
        dict of floats like the training's, with `total_loss`; empty where there is no image.
    """
    total, num_images = {}, 0
    with inference_context(model):
        for batch in loader:
            num_images += len(batch)
            for name, loss in model.losses(batch).items():
                total[name] = total.get(name, 0) + loss * len(batch)
    if not num_images:
        return {}
    means = {name: float(loss) / num_images for name, loss in total.items()}
    by_process = comm.all_gather(means)
    means = {name: sum(other[name] for other in by_process) / len(by_process) for name in means}
    return {"total_loss": sum(means.values()), **means}
