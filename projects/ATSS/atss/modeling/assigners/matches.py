"""What goes into an assigner and what comes out: objects, claims of objects on anchors, and matches (N, R)."""

from typing import NamedTuple

import torch
from torch.nn.utils.rnn import pad_sequence

from ..anchors import AnchorGrid

BACKGROUND = -1
IGNORED = -2

# "Centre inside the object" means farther than this many pixels from each of its sides, as in the paper's code.
INSIDE_MARGIN = 0.01

# A claim is one int64 number: the bits of its worth (the IoU, for most rules) above, the complement of the object's
# index below. IEEE 754 floats that are not negative are ordered as their bits are, so the largest number is the best
# claim, and of two objects with equal worth the one with the lower index wins. Every claim is larger than BACKGROUND
# and IGNORED.
INDEX_BITS = 32
INDEX_MASK = (1 << INDEX_BITS) - 1
NO_CLAIM = torch.iinfo(torch.int64).min


class Objects(NamedTuple):
    """The objects of a batch, one after another: M of them.

    boxes: (M, 4) float32, x1 y1 x2 y2 in pixels.
    image: (M,) int64, which image of the batch each is in.
    index: (M,) int64, its index within that image.
    valid: (M,) bool, False for boxes without area or with coordinates that are not finite; their `boxes` are 0.
    """

    boxes: torch.Tensor
    image: torch.Tensor
    index: torch.Tensor
    valid: torch.Tensor

    @classmethod
    def of(cls, boxes_by_image):
        """Join the list of N tensors (G_i, 4)."""
        boxes = torch.cat(boxes_by_image).float()
        counts = torch.tensor([len(boxes) for boxes in boxes_by_image]).to(boxes.device, non_blocking=True)
        image = torch.arange(len(counts), device=boxes.device).repeat_interleave(counts, output_size=len(boxes))
        index = torch.arange(len(boxes), device=boxes.device) - (counts.cumsum(0) - counts)[image]
        sides = boxes[:, 2:] - boxes[:, :2]
        valid = ((sides > 0) & (sides < torch.inf)).all(1)
        return cls(boxes.where(valid[:, None], 0), image, index, valid)


class Claims(NamedTuple):
    """Q claims of objects on anchors.

    anchors: (Q,) int64, image * R + anchor.
    numbers: (Q,) int64, the larger the better.
    """

    anchors: torch.Tensor
    numbers: torch.Tensor

    @classmethod
    def of(cls, anchors, worth, index, valid):
        """Claims of the objects `index` (Q,) int64, worth (Q,) float32, not negative; void where not `valid` (Q,)."""
        numbers = (worth.view(torch.int32).long() << INDEX_BITS) | (INDEX_MASK - index)
        return cls(anchors, numbers.where(valid, NO_CLAIM))


def resolve_claims(matches, claims):
    """Give every claimed anchor to the object to which it is worth most among those that claim it.

    Args:
        matches: (N, R) int64, BACKGROUND or IGNORED; changed in place.
        claims: the `Claims` of all objects.
    """
    matches = matches.view(-1)
    matches.scatter_reduce_(0, claims.anchors, claims.numbers, "amax")
    best = matches.take(claims.anchors)
    matches.put_(claims.anchors, torch.where(best < 0, best, INDEX_MASK - (best & INDEX_MASK)))


def unmatched(grid, num_images, ignore_boxes=None):
    """Matches (N, R) int64 before there are any: IGNORED where the anchor's centre lies in one of its image's
    `ignore_boxes` (a list of N tensors (K_i, 4), or None), else BACKGROUND."""
    if ignore_boxes is None or not num_images:
        return torch.full((num_images, len(grid)), BACKGROUND, device=grid.device)
    x1, y1, x2, y2 = pad_sequence(ignore_boxes, batch_first=True)[..., None].unbind(2)
    matches = []
    for level in range(len(grid.shapes)):
        y, x = grid.centers(level)
        in_columns, in_rows = ((x > x1) & (x < x2)).float(), ((y > y1) & (y < y2)).float()
        regions = (in_rows.transpose(1, 2) @ in_columns).flatten(1)
        matches.append(torch.where(regions > 0, IGNORED, BACKGROUND).repeat_interleave(grid.num_per_cell, dim=1))
    return torch.cat(matches, dim=1)


def check_arguments(grid, gt_boxes, ignore_boxes=None):
    """Check that the arguments of an assigner fit together.

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.
    """
    if not isinstance(grid, AnchorGrid):
        raise TypeError(f"grid: expected an AnchorGrid, got {type(grid).__name__}")
    check_boxes("gt_boxes", gt_boxes, grid.device)
    if ignore_boxes is not None:
        check_boxes("ignore_boxes", ignore_boxes, grid.device)
        if len(ignore_boxes) != len(gt_boxes):
            raise ValueError(
                f"ignore_boxes: expected one tensor for each of the {len(gt_boxes)} images of gt_boxes, got "
                f"{len(ignore_boxes)}"
            )


def check_boxes(name, boxes_by_image, device):
    if not isinstance(boxes_by_image, (list, tuple)):
        raise TypeError(f"{name}: expected a list of tensors, one an image, got {type(boxes_by_image).__name__}")
    for i, boxes in enumerate(boxes_by_image):
        if not isinstance(boxes, torch.Tensor):
            raise TypeError(f"{name}[{i}]: expected a tensor (number of boxes, 4), got {type(boxes).__name__}")
        if boxes.ndim != 2 or boxes.shape[1] != 4:
            raise ValueError(f"{name}[{i}]: expected shape (number of boxes, 4), got {tuple(boxes.shape)}")
        if not boxes.is_floating_point():
            raise TypeError(f"{name}[{i}]: expected float32, got {boxes.dtype}")
        if boxes.device != device:
            raise ValueError(f"{name}[{i}]: expected device {device}, that of the grid, got {boxes.device}")
