"""The losses of ATSS and RetinaNet, and what they are divided by (section 3.1 and 4.1; settings of the paper's code).

All functions work on every anchor at once and mask what takes no part, so that shapes do not depend on the number of
positives and nothing waits for the host.
"""

import torch
import torch.distributed as dist
import torch.nn.functional as F

# Least sum of weights to divide by, for batches without positives.
MIN_WEIGHT_SUM = 1e-6


def focal_loss(logits, classes, positive, valid, alpha=0.25, gamma=2.0):
    """Sum of the sigmoid focal loss over anchors and classes (Lin et al. 2017, alpha-balanced).

    Args:
        logits: (N, R, C).
        classes: (N, R) int64 class of each anchor's object; not read where `positive` is False.
        positive: (N, R) bool.
        valid: (N, R) bool, False where the anchor takes no part.
        alpha, gamma: weight of the positive class, focusing exponent.

    Returns:
        scalar.
    """
    as_negative = _focal_term(-logits, 1 - alpha, gamma) * valid[..., None]
    index = classes.where(positive, 0)[..., None]
    at_class = logits.gather(-1, index)
    correction = _focal_term(at_class, alpha, gamma) - as_negative.gather(-1, index)
    return as_negative.sum() + (correction * positive[..., None]).sum()


def _focal_term(logits, weight, gamma):
    """-weight (1 - p)^gamma log p for p = sigmoid(logits)."""
    return weight * torch.sigmoid(-logits) ** gamma * F.softplus(-logits)


def giou_loss(boxes, targets):
    """1 - GIoU (Rezatofighi et al. 2019), pair by pair.

    Args:
        boxes, targets: (..., 4), x1 y1 x2 y2 in pixels, sides not negative.

    Returns:
        (...), from 0 to 2.
    """
    eps = 1e-7
    area, target_area = ((b[..., 2:] - b[..., :2]).prod(-1) for b in (boxes, targets))
    low, high = torch.minimum(boxes, targets), torch.maximum(boxes, targets)
    intersection = (low[..., 2:] - high[..., :2]).clamp(min=0).prod(-1)
    enclosing = (high[..., 2:] - low[..., :2]).prod(-1) + eps
    union = area + target_area - intersection + eps
    return 1 - intersection / union + (enclosing - union) / enclosing


def smooth_l1_loss(deltas, targets, beta=0.11):
    """Mean of the smooth L1 loss of four deltas (Fast R-CNN; settings of the RetinaNet in the paper's code).

    Args:
        deltas, targets: (..., 4), in a box coding.
        beta: difference at which it turns from square to linear.

    Returns:
        (...).
    """
    return F.smooth_l1_loss(deltas, targets, beta=beta, reduction="none").mean(-1)


def centerness_targets(points, boxes):
    """How central a point lies in a box: sqrt(min(l, r) / max(l, r) x min(t, b) / max(t, b)) (FCOS, Tian et al. 2019).

    Args:
        points: (..., 2), x y in pixels.
        boxes: (..., 4), x1 y1 x2 y2 in pixels.

    Returns:
        (...), 1 at the centre, 0 on the border and outside.
    """
    before, behind = points - boxes[..., :2], boxes[..., 2:] - points
    ratio = torch.minimum(before, behind).clamp(min=0) / torch.maximum(before, behind).clamp(min=1e-12)
    return ratio.prod(-1).sqrt()


def normalizers(positive, weights):
    """What the losses are divided by: averages over all processes of the run, so that every object weighs the same.

    Args:
        positive: (N, R) bool.
        weights: (N, R), how much the box of a positive counts: its centerness target, or 1.

    Returns:
        two scalars: the number of positives per process (at least 1), the sum of their weights a process.
    """
    sums = torch.stack([positive.sum(), (weights * positive).sum()])
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(sums)
        sums = sums / dist.get_world_size()
    return sums[0].clamp(min=1), sums[1].clamp(min=MIN_WEIGHT_SUM)
