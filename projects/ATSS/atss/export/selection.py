"""Post-processing of N images at once, with outputs of a fixed size: the rule of `BoxSelector`."""

import torch
from torch.nn import functional as F
from torchvision.ops import nms


def candidates(selector, box_coding, grid, predictions):
    """The boxes that a `BoxSelector` selects on every level, before they are clipped.

    Returns:
        boxes (N, L K, 4), scores (N, L K) and classes (N, L K) int64 of L levels and K = `topk_per_level`, level by
        level, each best first; unused entries have score 0.
    """
    logits, deltas, centerness = predictions
    number, num_classes = selector.topk_per_level, logits.shape[-1]
    of_class = logits.sigmoid()
    scores = of_class if centerness is None else of_class * centerness.sigmoid()[..., None]
    key = (scores if selector.topk_by_centerness else of_class).where(of_class > selector.score_threshold, 0)
    selected, first = [], 0
    for of_level, size in zip(key.split(grid.level_sizes, 1), grid.level_sizes, strict=True):
        # Padded, so that the number of outputs does not depend on the size of the images.
        value, index = F.pad(of_level.flatten(1), (0, number)).topk(number)
        selected.append((index + first * num_classes).where(value > 0, -1))
        first = first + size
    pair = torch.cat(selected, 1)
    used, pair = pair >= 0, pair.clamp(min=0)
    anchor = pair // num_classes
    scores = scores.flatten(1).gather(1, pair).where(used, 0)
    if centerness is not None and selector.score_root:
        scores = scores.sqrt()
    return box_coding.decode(take(deltas, anchor), grid.boxes()[anchor]), scores, pair % num_classes


def best(boxes, scores, classes, number):
    """The best `number` of (N, B) boxes, best first, padded with score 0: boxes, scores and classes."""
    scores, index = F.pad(scores, (0, number)).topk(number)
    index = index.where(scores > 0, 0)
    return take(boxes, index), scores, classes.gather(1, index)


def take(values, index):
    """Rows (N, b, w) of `values` (N, m, w) at `index` (N, b)."""
    return values.gather(1, index[..., None].expand(-1, -1, values.shape[-1]))


def suppress(boxes, scores, classes, iou_threshold, num_classes, number):
    """Non-maximum suppression per image and class.

    Args:
        boxes: (N, B, 4), x1 y1 x2 y2 in pixels, not negative.
        scores: (N, B); a score of 0 means no box.
        classes: (N, B) int64, below `num_classes`.
        iou_threshold: of two boxes with a greater IoU the one with the lower score is suppressed.
        num_classes: number of classes of the detector.
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
