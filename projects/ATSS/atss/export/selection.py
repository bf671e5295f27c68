"""Non-maximum suppression as an operator, which `onnx_file` translates."""

import torch

from ..modeling.inference import suppress

suppress_op = torch.library.custom_op(
    "atss::suppress",
    suppress,
    mutates_args=(),
    schema="(Tensor boxes, Tensor scores, Tensor classes, float iou_threshold, int num_classes, int number) -> Tensor",
)


@suppress_op.register_fake
def _(boxes, scores, *_):
    return torch.empty_like(scores, dtype=torch.bool)
