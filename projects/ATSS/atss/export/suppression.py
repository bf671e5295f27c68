"""Non-maximum suppression of a batch: with torchvision's operator, and as a custom operator for ONNX."""

import torch
from torch.nn import functional as F
from torchvision.ops import nms


def suppress(boxes, scores, classes, iou_threshold, num_classes, number):
    """Non-maximum suppression per image and class.

    Args:
        boxes: (N, B, 4), x1 y1 x2 y2 in pixels, not negative.
        scores: (N, B); a score of 0 means no box.
        classes: (N, B) int64, below `num_classes`.
        iou_threshold: of two boxes with a greater IoU the one with the lower score is suppressed.
        num_classes: of the detector.
        number: how many of the best boxes per class are needed; ONNX's operator keeps no more.

    Returns:
        (N, B) bool, which boxes are kept.
    """
    image = torch.arange(scores.shape[0], device=boxes.device)[:, None]
    # Two boxes without area, which are always kept: torchvision declares to exporters that at least two are.
    group = F.pad((image * num_classes + classes).flatten(), (0, 2))
    scores_and_two = F.pad(scores.flatten(), (0, 2), value=1)
    boxes_and_two = F.pad(boxes.flatten(0, 1), (0, 0, 0, 2))

    valid = (scores_and_two > 0).nonzero().squeeze(1)
    # Move the boxes of every class and image apart, in float64 so that they lose no digit.
    apart = boxes_and_two[valid] + (group[valid] * (boxes.amax().double() + 1))[:, None]
    kept = valid[nms(apart, scores_and_two[valid].double(), iou_threshold)]
    mask = torch.zeros_like(scores_and_two, dtype=torch.bool).index_fill(0, kept, True)
    return mask[:-2].view_as(scores)


# `suppress` as an operator, which `onnx_file` translates.
suppress_op = torch.library.custom_op(
    "atss::suppress",
    suppress,
    mutates_args=(),
    schema="(Tensor boxes, Tensor scores, Tensor classes, float iou_threshold, int num_classes, int number) -> Tensor",
)


@suppress_op.register_fake
def _(boxes, scores, *_):
    return torch.empty_like(scores, dtype=torch.bool)
