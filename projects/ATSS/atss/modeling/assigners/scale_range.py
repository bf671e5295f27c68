"""Positives by a spatial and a scale constraint, as in FCOS (section 3.1, Table 2)."""

import math
from collections.abc import Sequence

import torch

from .assigner import ASSIGNER_REGISTRY, Assigner
from .matches import INSIDE_MARGIN, Positives
from .windows import cells_in, window

# Of P3 to P7 (FCOS, Tian et al. 2019), in pixels.
FCOS_RANGES = ((0, 64), (64, 128), (128, 256), (256, 512), (512, math.inf))
INFINITY_BITS = 0x7F800000


@ASSIGNER_REGISTRY.register()
class ScaleRangeAssigner(Assigner):
    """A point in a ground truth box is positive if its distance to the farthest side is in the range of its level.

    A point that is positive for several boxes is matched to the one with the smallest area; of equal areas to the one
    with the lower index. The anchors of a cell share its centre, and so their match. A box without area, or with
    coordinates that are not finite, matches nothing; one warning counts such boxes.

    Only cells inside the box and close enough to all its sides are visited: at most as many as the range is wide,
    whatever the size of the box, except on a level whose range is unbounded.

    Args:
        ranges: (low, high) per level, finest level first, in pixels, both inclusive.

    Raises:
        ValueError: ranges that are not pairs of numbers with low < high; in a call, a grid with another number of
            levels.
    """

    def __init__(self, ranges=FCOS_RANGES):
        super().__init__()
        self.ranges = check_ranges(ranges)

    def assign(self, grid, gt_boxes, ignore_boxes):
        if len(self.ranges) != len(grid.shapes):
            raise ValueError(
                f"ranges: expected one for each of the {len(grid.shapes)} levels of grid, got {len(self.ranges)}"
            )
        return super().assign(grid, gt_boxes, ignore_boxes)

    def positives(self, gt, grid):
        low, high = gt.boxes.double().t()[:, None].split(2)
        farthest = torch.tensor(self.ranges, dtype=torch.float64, device=grid.device)[:, 1:]
        first, size = window(torch.maximum(low, high - farthest), torch.minimum(high, low + farthest), grid)
        for windows, which, column, row in cells_in(first, size):
            window_of_cell = windows[which]
            box, level = window_of_cell % len(gt.boxes), window_of_cell // len(gt.boxes)
            yield self.positives_among(gt, grid, box, level, column, row)

    def positives_among(self, gt, grid, box, level, column, row):
        """The positives, of pairs of a ground truth box and a cell: `box`, `level`, `column`, `row` (Q,) int64."""
        levels = grid.levels()
        stride = levels.strides[level]
        center = torch.stack([(column + grid.offset) * stride, (row + grid.offset) * stride], dim=1)
        low, high = gt.boxes[box].split(2, dim=1)
        sides = torch.cat([center - low, high - center], dim=1)
        least, most = sides.new_tensor(self.ranges)[level].unbind(1)
        farthest = sides.amax(1)
        positive = (sides.amin(1) > INSIDE_MARGIN) & (farthest >= least) & (farthest <= most)

        box, level, column, row = torch.stack([box, level, column, row])[:, positive]
        cell = levels.first[level] + row * levels.sizes[0, level] + column
        anchors = gt.image[box] * len(grid) + cell * grid.num_per_cell
        anchors = anchors[:, None] + torch.arange(grid.num_per_cell, device=grid.device)
        areas = (gt.boxes[:, 2:] - gt.boxes[:, :2]).prod(1)
        # Smallest first: the bits of an area are subtracted from those of infinity, which reverses the order exactly.
        priority = (INFINITY_BITS - areas.view(torch.int32)).view(torch.float32)
        priority, index = (x[box].repeat_interleave(grid.num_per_cell) for x in (priority, gt.index))
        return Positives.of(anchors.flatten(), priority, index)


def check_ranges(ranges):
    """The ranges as a tuple of pairs of float; raise a ValueError unless each is (low, high) with low < high."""
    for pair in ranges:
        if not isinstance(pair, Sequence) or len(pair) != 2 or not 0 <= pair[0] < pair[1]:
            raise ValueError(f"ranges: expected (low, high) in pixels for every level, low before high, got {pair}")
    return tuple((float(low), float(high)) for low, high in ranges)
