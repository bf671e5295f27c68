"""Non-maximum suppression of a batch: with torchvision's operator, and as one operator that becomes ONNX's."""

import torch
from torch.nn import functional as F
from torchvision.ops import nms


def suppress(boxes, scores, classes, iou_threshold, num_classes, number):
    """Which boxes stay after suppression, image by image and class by class.

    Args:
        boxes: (N, B, 4), x1 y1 x2 y2 in pixels, from 0 on.
        scores: (N, B); a score of 0 is no box.
        classes: (N, B) int64, below `num_classes`.
        iou_threshold: IoU above which the lower of two boxes goes.
        num_classes: of the detector.
        number: at least so many of the best that stay are wanted of a class.

    Returns:
        (N, B) bool.
    """
    image = torch.arange(scores.shape[0], device=boxes.device)[:, None]
    # Two boxes without area, which overlap with none and always stay: torchvision tells exporters that two do.
    group = F.pad((image * num_classes + classes).flatten(), (0, 2))
    scores_and_two = F.pad(scores.flatten(), (0, 2), value=1)
    boxes_and_two = F.pad(boxes.flatten(0, 1), (0, 0, 0, 2))

    there = (scores_and_two > 0).nonzero().squeeze(1)
    # Every class of every image lies apart; in float64 boxes lose no digit by that.
    apart = boxes_and_two[there] + (group[there] * (boxes.amax().double() + 1))[:, None]
    kept = there[nms(apart, scores_and_two[there].double(), iou_threshold)]
    mask = torch.zeros_like(scores_and_two, dtype=torch.bool).index_fill(0, kept, True)
    return mask[:-2].view_as(scores)


@torch.library.custom_op("atss::suppress", mutates_args=())
def suppress_op(
    boxes: torch.Tensor,
    scores: torch.Tensor,
    classes: torch.Tensor,
    iou_threshold: float,
    num_classes: int,
    number: int,
) -> torch.Tensor:
    """`suppress` as an operator of its own."""
    return suppress(boxes, scores, classes, iou_threshold, num_classes, number)


@suppress_op.register_fake
def _(boxes, scores, classes, iou_threshold, num_classes, number):
    return torch.empty_like(scores, dtype=torch.bool)
