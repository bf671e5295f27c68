"""Non-maximum suppression for exporters: `suppress`, and `suppress_op`, an operator that `onnx_file` translates."""

import torch
from torch.nn import functional as F

from ..modeling import inference


def suppress(boxes, scores, classes, iou_threshold, num_classes, number):
    """`inference.suppress` with two more boxes per image, without area, which are always kept.

    torchvision declares to exporters that at least two boxes are.
    """
    boxes, scores, classes = F.pad(boxes, (0, 0, 0, 2)), F.pad(scores, (0, 2), value=1), F.pad(classes, (0, 2))
    return inference.suppress(boxes, scores, classes, iou_threshold, num_classes, number)[:, :-2].contiguous()


suppress_op = torch.library.custom_op(
    "atss::suppress",
    suppress,
    mutates_args=(),
    schema="(Tensor boxes, Tensor scores, Tensor classes, float iou_threshold, int num_classes, int number) -> Tensor",
)


@suppress_op.register_fake
def _(boxes, scores, *_):
    return torch.empty_like(scores, dtype=torch.bool)
