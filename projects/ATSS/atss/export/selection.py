"""The rule of `BoxSelector` for N images at once, with outputs of a fixed size."""

import torch
from torch.nn import functional as F


def candidates(selector, box_coding, grid, predictions):
    """The boxes that a `BoxSelector` selects on every level, before they are clipped.

    Args:
        selector: `BoxSelector`; its `topk_per_level` is K.
        box_coding: turns deltas and anchors into boxes.
        grid: the `AnchorGrid`, L levels.
        predictions: `Predictions` for N images.

    Returns:
        boxes (N, L K, 4), scores (N, L K) and classes (N, L K) int64, level by level, each best first; unused entries
        have score 0.
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
