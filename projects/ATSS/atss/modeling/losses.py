"""The losses of ATSS and RetinaNet, and their normalizers (sections 3.1 and 4.1; settings of the paper's code).

All functions work on every anchor and mask those that do not count: shapes are independent of the number of positives,
and there is no device synchronisation.
"""

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

GIOU_EPS = 1e-7


def focal_loss(
    logits: Tensor, classes: Tensor, positive: Tensor, valid: Tensor, alpha: float = 0.25, gamma: float = 2.0
) -> Tensor:
    """Sum of the sigmoid focal loss over anchors and classes (Lin et al. 2017, alpha-balanced).

    Args:
        logits: (N, R, C).
        classes: (N, R) int64, class of the matched ground truth box; not used where `positive` is False.
        positive: (N, R) bool.
        valid: (N, R) bool, False for ignored anchors.
        alpha: weight of the positive class.
        gamma: focusing exponent.

    Returns:
        scalar.
    """
    as_negative = _focal_term(-logits, 1 - alpha, gamma) * valid[..., None]
    index = classes.where(positive, 0)[..., None]
    at_class = logits.gather(-1, index)
    correction = _focal_term(at_class, alpha, gamma) - as_negative.gather(-1, index)
    return as_negative.sum() + (correction * positive[..., None]).sum()


def _focal_term(logits: Tensor, weight: float, gamma: float) -> Tensor:
    """-weight (1 - p)^gamma log p for p = sigmoid(logits)."""
    return weight * torch.sigmoid(-logits) ** gamma * F.softplus(-logits)


def giou_loss(boxes: Tensor, targets: Tensor) -> Tensor:
    """1 - GIoU of pairs of boxes (Rezatofighi et al. 2019).

    Args:
        boxes, targets: (..., 4), x1 y1 x2 y2 in pixels, with x1 <= x2 and y1 <= y2.

    Returns:
        (...), from 0 to 2.
    """
    area = (boxes[..., 2:] - boxes[..., :2]).prod(-1)
    target_area = (targets[..., 2:] - targets[..., :2]).prod(-1)
    low, high = torch.minimum(boxes, targets), torch.maximum(boxes, targets)
    intersection = (low[..., 2:] - high[..., :2]).clamp(min=0).prod(-1)
    enclosing = (high[..., 2:] - low[..., :2]).prod(-1) + GIOU_EPS
    union = area + target_area - intersection + GIOU_EPS
    return 1 - intersection / union + (enclosing - union) / enclosing


def smooth_l1_loss(deltas: Tensor, targets: Tensor, beta: float = 0.11) -> Tensor:
    """Smooth L1 loss, averaged over the four deltas (Fast R-CNN; settings of the RetinaNet in the paper's code).

    Args:
        deltas, targets: (..., 4), in a box coding.
        beta: difference at which the loss turns from quadratic to linear.

    Returns:
        (...).
    """
    return F.smooth_l1_loss(deltas, targets, beta=beta, reduction="none").mean(-1)


def centerness_targets(points: Tensor, boxes: Tensor) -> Tensor:
    """Centerness of points in boxes: sqrt(min(l, r) / max(l, r) * min(t, b) / max(t, b)) (FCOS, Tian et al. 2019).

    Args:
        points: (..., 2), x y in pixels.
        boxes: (..., 4), x1 y1 x2 y2 in pixels.

    Returns:
        (...), 1 at the centre, 0 on the border and outside of the box.
    """
    before, behind = points - boxes[..., :2], boxes[..., 2:] - points
    ratio = torch.minimum(before, behind).clamp(min=0) / torch.maximum(before, behind).clamp(min=1e-12)
    return ratio.prod(-1).sqrt()


def normalizers(sums: Tensor) -> Tensor:
    """What the three losses are divided by: averages over all processes, so that all positives weigh the same.

    Args:
        sums: (3,), number of this process's positives, sum of their weights in the box loss, and the number again.

    Returns:
        (3,), at least 1, 1e-6 and 1.
    """
    if dist.is_available() and dist.is_initialized():
        sums = sums / dist.get_world_size()
        dist.all_reduce(sums)
    return sums.maximum(torch.tensor([1, 1e-6, 1]).to(sums, non_blocking=True))
