"""The rule of `BoxSelector` for N images at once, with as many places for boxes whatever is found."""

import torch
from torch.nn import functional as F


def candidates(selector, box_coding, grid, predictions):
    """The boxes that a `BoxSelector` takes of every level, before they are clipped.

    Args:
        selector: `BoxSelector`; its `topk_per_level` is K.
        box_coding: turns deltas and anchors into boxes.
        grid: the `AnchorGrid`, L levels.
        predictions: `Predictions` for N images.

    Returns:
        boxes (N, L K, 4), scores (N, L K) and classes (N, L K) int64, level by level, each best first; score 0 for a
        place without a box.
    """
    logits, deltas, centerness = predictions
    number, num_levels, num_classes = selector.topk_per_level, len(grid.level_sizes), logits.shape[-1]
    quality = None if centerness is None else centerness.sigmoid()

    # The best K pairs of anchor and class are among the best K anchors, each with its best class.
    key, _ = rank(selector, logits.amax(-1), quality)
    anchors, found, first = [], [], 0
    for of_level, size in zip(key.split(grid.level_sizes, 1), grid.level_sizes, strict=True):
        # Filled up, so that the number of places does not depend on the size of the images.
        value, index = F.pad(of_level, (0, number)).topk(number)
        found.append(value > 0)
        anchors.append((index + first).where(value > 0, 0))
        first = first + size
    anchor, found = torch.cat(anchors, 1), torch.cat(found, 1)

    quality = None if quality is None else quality.gather(1, anchor)[..., None]
    key, scores = rank(selector, take(logits, anchor), quality)
    key = key.where(found[..., None], 0)
    key, scores = (values.unflatten(1, (num_levels, number)).flatten(2) for values in (key, scores))
    value, pair = key.topk(number)
    scores = scores.gather(2, pair).where(value > 0, 0).flatten(1)
    if quality is not None and selector.score_root:
        scores = scores.sqrt()
    place = pair // num_classes + number * torch.arange(num_levels, device=pair.device)[:, None]
    anchor = anchor.gather(1, place.flatten(1))
    return box_coding.decode(take(deltas, anchor), grid.boxes()[anchor]), scores, (pair % num_classes).flatten(1)


def rank(selector, logits, quality):
    """What boxes are chosen by, 0 where a class score is not above the threshold, and class score x centerness.

    Args:
        selector: `BoxSelector`.
        logits: of any shape.
        quality: centerness from 0 to 1, broadcastable to it, or None.

    Returns:
        two tensors of the shape of `logits`.
    """
    of_class = logits.sigmoid()
    scores = of_class if quality is None else of_class * quality
    key = scores if selector.topk_by_centerness else of_class
    return key.where(of_class > selector.score_threshold, 0), scores


def best(boxes, scores, classes, number):
    """The best `number` of (N, B) boxes, best first, filled up with score 0: boxes, scores and classes."""
    scores, index = F.pad(scores, (0, number)).topk(number)
    index = index.where(scores > 0, 0)
    return take(boxes, index), scores, classes.gather(1, index)


def take(values, index):
    """Rows (N, b, w) of `values` (N, m, w) at `index` (N, b)."""
    return values.gather(1, index[..., None].expand(-1, -1, values.shape[-1]))
