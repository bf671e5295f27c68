"""Box regression by distributions (Generalized Focal Loss, arXiv 2006.04388, section 3).

The distance from a point to each side of the box is the mean of a distribution over 0, 1, ..., n strides, which may be
wide where the side is hard to tell. The model predicts the n + 1 logits of each of the four distributions.
"""

import torch
from torch import Tensor

from .box_coding import PointCoding

# How far distances to learn stay below n, in strides, so that each lies between two numbers that have a logit.
MARGIN = 0.1


class DistributionCoding:
    """`PointCoding` with distributions of the distances.

    Args:
        anchor_scale, pixel_extent: see `PointCoding`.
        max_distance: n, in strides.
    """

    # Equal logits: all distances are n / 2.
    initial_bias = 0.0

    def __init__(self, anchor_scale: float = 8.0, pixel_extent: int = 0, max_distance: int = 16):
        self.points = PointCoding(anchor_scale, pixel_extent)
        self.pixel_extent = pixel_extent
        self.max_distance = max_distance
        self.num_values = 4 * (max_distance + 1)

    def encode(self, boxes: Tensor, anchors: Tensor) -> Tensor:
        """Distances (..., 4) in strides to learn, from 0 to n - 0.1: the targets of `distribution_focal_loss`."""
        return self.points.encode(boxes, anchors).clamp(0, self.max_distance - MARGIN)

    def decode(self, logits: Tensor, anchors: Tensor) -> Tensor:
        """Boxes (..., 4) from `logits` (..., 4 (n + 1)), side by side in the order left, top, right, bottom."""
        numbers = torch.arange(self.max_distance + 1, device=logits.device)
        # Not a product of matrices, which mixed precision would round.
        distances = (logits.unflatten(-1, (4, -1)).softmax(-1) * numbers).sum(-1)
        return self.points.decode(distances, anchors)


def distribution_focal_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of the two numbers next to the target, weighted by how near they are (equation 6).

    Args:
        logits: (..., n + 1), of 0, 1, ..., n.
        targets: (...), from 0 to less than n.

    Returns:
        (...).
    """
    below = targets.floor()
    share = targets - below  # of the number above
    pair = logits.log_softmax(-1).gather(-1, torch.stack([below, below + 1], -1).long())
    return -(pair * torch.stack([1 - share, share], -1)).sum(-1)
