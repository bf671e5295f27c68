"""Ground truth boxes of a batch, their positives, and the matches (N, R) that result."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

BACKGROUND = -1
IGNORED = -2

# "Centre inside the box" means farther than this many pixels from each of its sides, as in the paper's code.
INSIDE_MARGIN = 0.01

# A positive has one int64 number: the bits of its priority (the IoU, in most rules) above, the complement of the index
# of the ground truth box below. Non-negative IEEE 754 floats are ordered as their bits are, so the largest number has
# the highest priority and, among equals, the lowest index. Every such number is larger than BACKGROUND and IGNORED.
INDEX_BITS = 32
INDEX_MASK = (1 << INDEX_BITS) - 1
NO_POSITIVE = torch.iinfo(torch.int64).min


class GroundTruth(NamedTuple):
    """The M ground truth boxes of a batch, image after image.

    boxes: (M, 4) float32, x1 y1 x2 y2 in pixels.
    image: (M,) int64, index of the image in the batch.
    index: (M,) int64, index of the box in its image.
    valid: (M,) bool, False for boxes without area or with coordinates that are not finite; their `boxes` are 0.
    num_images: N.
    """

    boxes: Tensor
    image: Tensor
    index: Tensor
    valid: Tensor
    num_images: int

    @classmethod
    def of(cls, boxes_by_image):
        """Join the N tensors (G_i, 4)."""
        boxes = torch.cat(boxes_by_image).float()
        counts = torch.tensor([len(boxes) for boxes in boxes_by_image]).to(boxes.device, non_blocking=True)
        image = torch.arange(len(counts), device=boxes.device).repeat_interleave(counts, output_size=len(boxes))
        index = torch.arange(len(boxes), device=boxes.device) - (counts.cumsum(0) - counts)[image]
        sides = boxes[:, 2:] - boxes[:, :2]
        valid = ((sides > 0) & (sides < torch.inf)).all(1)
        return cls(boxes.where(valid[:, None], 0), image, index, valid, len(boxes_by_image))

    def split(self, size):
        """Blocks of at most `size` boxes, at least 1."""
        parts = (values.split(max(1, size)) for values in self[:-1])
        return [GroundTruth(*part, self.num_images) for part in zip(*parts, strict=True)]


class Positives(NamedTuple):
    """Q pairs of an anchor and a ground truth box for which it is positive.

    anchors: (Q,) int64, image * R + anchor.
    keys: (Q,) int64, priority and index of the ground truth box in one number; the largest wins the anchor.
    """

    anchors: Tensor
    keys: Tensor

    @classmethod
    def of(cls, anchors, priority, index, valid=None):
        """Positives of the boxes `index` (Q,) int64 with `priority` (Q,) float32 >= 0; none where not `valid` (Q,)."""
        keys = (priority.view(torch.int32).long() << INDEX_BITS) | (INDEX_MASK - index)
        return cls(anchors, keys if valid is None else keys.where(valid, NO_POSITIVE))


def resolve_conflicts(matches, anchors, keys):
    """Match every anchor of `Positives` to its box of highest priority.

    `matches` (N, R) int64, BACKGROUND or IGNORED, changes in place.
    """
    matches = matches.view(-1)
    matches.scatter_reduce_(0, anchors, keys, "amax")
    best = matches.take(anchors)
    matches.put_(anchors, torch.where(best < 0, best, INDEX_MASK - (best & INDEX_MASK)))


def unmatched(grid, num_images, ignore_boxes):
    """Matches (N, R) int64 without ground truth.

    IGNORED where the anchor's centre lies in one of its image's `ignore_boxes` (N tensors (K_i, 4), or None), otherwise
    BACKGROUND.
    """
    if ignore_boxes is None or not num_images:
        return torch.full((num_images, len(grid)), BACKGROUND, device=grid.device)
    x1, y1, x2, y2 = pad_sequence(ignore_boxes, batch_first=True)[..., None].unbind(2)
    matches = []
    for level in range(len(grid.shapes)):
        y, x = grid.centers(level)
        in_columns = ((x > x1) & (x < x2)).float()
        in_rows = ((y > y1) & (y < y2)).float()
        num_regions = (in_rows.transpose(1, 2) @ in_columns).flatten(1)
        matches.append(torch.where(num_regions > 0, IGNORED, BACKGROUND).repeat_interleave(grid.num_per_cell, dim=1))
    return torch.cat(matches, dim=1)
