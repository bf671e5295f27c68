"""From claims of objects on anchors to the (N, R) matches of a batch."""

from typing import NamedTuple

import torch

BACKGROUND = -1
IGNORED = -2

# A claim is one int64 number: the IoU's bits above, the complement of the object's index below. IEEE 754 floats that
# are not negative are ordered as their bits are, so the largest number is the best claim, and of two objects with
# equal IoU the one with the lower index wins.
INDEX_BITS = 32
INDEX_MASK = (1 << INDEX_BITS) - 1
NO_CLAIM = -1


class Objects(NamedTuple):
    """The objects of a batch, one after another: M of them.

    boxes: (M, 4) float32, x1 y1 x2 y2 in pixels.
    picture: (M,) int64, which picture of the batch each is in.
    index: (M,) int64, its index within that picture.
    valid: (M,) bool, False for boxes without area or with coordinates that are not finite; their `boxes` are 0.
    """

    boxes: torch.Tensor
    picture: torch.Tensor
    index: torch.Tensor
    valid: torch.Tensor

    @classmethod
    def of(cls, boxes_by_picture):
        """Join the list of N tensors (G_i, 4)."""
        boxes = torch.cat([boxes.reshape(-1, 4) for boxes in boxes_by_picture]).float()
        counts = torch.tensor([len(boxes) for boxes in boxes_by_picture], device=boxes.device)
        picture = torch.arange(len(counts), device=boxes.device).repeat_interleave(counts, output_size=len(boxes))
        index = torch.arange(len(boxes), device=boxes.device) - (counts.cumsum(0) - counts)[picture]
        valid = boxes.isfinite().all(1) & (boxes[:, 2:] > boxes[:, :2]).all(1)
        return cls(boxes.where(valid[:, None], 0), picture, index, valid)


def resolve_claims(num_pictures, num_anchors, objects, anchors, ious, claimed):
    """Give every anchor to the object with the highest IoU among those that claim it.

    Args:
        num_pictures, num_anchors: N and R.
        objects: the M `Objects`.
        anchors: (M, K) int64, anchors that each object looked at.
        ious: (M, K) float32, not negative.
        claimed: (M, K) bool, which of them it claims.

    Returns:
        (N, R) int64: index of the object within its picture, BACKGROUND where nobody claims.
    """
    claims = (ious.view(torch.int32).long() << INDEX_BITS) | (INDEX_MASK - objects.index[:, None])
    claims = claims.where(claimed, NO_CLAIM)
    best = torch.full((num_pictures * num_anchors,), NO_CLAIM, dtype=torch.int64, device=anchors.device)
    places = objects.picture[:, None] * num_anchors + anchors
    best.scatter_reduce_(0, places.flatten(), claims.flatten(), "amax")
    index = INDEX_MASK - (best & INDEX_MASK)
    return index.where(best != NO_CLAIM, BACKGROUND).view(num_pictures, num_anchors)


def ignore_inside(matches, anchor_centers, ignore_boxes):
    """Turn background into IGNORED where the anchor's centre lies in one of its picture's `ignore_boxes`.

    Args:
        matches: (N, R) int64.
        anchor_centers: (R, 2), x y in pixels.
        ignore_boxes: list of N tensors (K_i, 4), x1 y1 x2 y2 in pixels.
    """
    regions = Objects.of(ignore_boxes)
    x, y = anchor_centers.unbind(-1)
    x1, y1, x2, y2 = regions.boxes[:, :, None].unbind(1)
    inside = (x > x1) & (x < x2) & (y > y1) & (y < y2) & regions.valid[:, None]
    covered = torch.zeros_like(matches).index_add_(0, regions.picture, inside.long()) > 0
    return matches.masked_fill(covered & (matches == BACKGROUND), IGNORED)
