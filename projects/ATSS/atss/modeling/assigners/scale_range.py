"""Positives by a spatial and a scale constraint, as FCOS chooses them (section 3.1, Table 2)."""

import math
from collections.abc import Sequence

import torch

from .invalid import InvalidObjects
from .matches import INSIDE_MARGIN, Claims, Objects, check_arguments, resolve_claims, unmatched
from .registry import ASSIGNER_REGISTRY
from .windows import cells_in, window

# Of P3 to P7 (FCOS, Tian et al. 2019), in pixels.
FCOS_RANGES = ((0, 64), (64, 128), (128, 256), (256, 512), (512, math.inf))
INFINITY_BITS = 0x7F800000


@ASSIGNER_REGISTRY.register()
class ScaleRangeAssigner:
    """Points inside an object are positive on the level whose range holds the distance to the object's farthest side.

    Where several objects want a point the one with the smallest area gets it; of equal areas the one with the lower
    index. Anchors of one cell share its centre, and so their match. An object without area, or with coordinates that
    are not finite, matches nothing; a warning counts them, once.

    An object looks at the cells of a level that lie in it and near enough to both its sides: at most as many as a range
    is wide, whatever the size of the object, except on a level whose range has no end.

    Args:
        ranges: (low, high) for every level, finest first, in pixels, both included.

    Raises:
        ValueError: ranges that are not pairs of numbers, low before high.
    """

    def __init__(self, ranges=FCOS_RANGES):
        self.ranges = check_ranges(ranges)
        self.invalid = InvalidObjects()

    @torch.no_grad()
    def __call__(self, grid, gt_boxes, ignore_boxes=None):
        """Match the anchors of N images to their objects: arguments, result and errors as in `ATSSAssigner`.

        Raises:
            ValueError: also where the grid has another number of levels than there are ranges.
        """
        check_arguments(grid, gt_boxes, ignore_boxes)
        check_levels(self.ranges, grid)
        matches = unmatched(grid, len(gt_boxes), ignore_boxes)
        if not any(map(len, gt_boxes)):
            return matches
        objects = Objects.of(gt_boxes)
        self.invalid.report_now(objects.valid)

        low, high = objects.boxes.double().t()[:, None].split(2)
        farthest = torch.tensor(self.ranges, dtype=torch.float64, device=grid.device)[:, 1:]
        first, size = window(torch.maximum(low, high - farthest), torch.minimum(high, low + farthest), grid)
        claims = []
        for windows, which, column, row in cells_in(first, size):
            level, object = (places[which] for places in (windows // len(objects.boxes), windows % len(objects.boxes)))
            claims.append(claims_in_range(objects, grid, self.ranges, object, level, column, row))
        if claims:
            resolve_claims(matches, Claims(*map(torch.cat, zip(*claims, strict=True))))
        return matches


def claims_in_range(objects, grid, ranges, object, level, column, row):
    """The claims of objects on cells that lie inside them and in the range of their level.

    Args:
        objects: `Objects`.
        grid: `AnchorGrid`.
        ranges: (low, high) for every level.
        object, level, column, row: (Q,) int64, the pairs of objects and cells to look at.

    Returns:
        `Claims` that prefer small objects, for all anchors of the cells.
    """
    levels = grid.levels()
    stride = levels.strides[level]
    center = torch.stack([(column + grid.offset) * stride, (row + grid.offset) * stride], dim=1)
    low, high = objects.boxes[object].split(2, dim=1)
    sides = torch.cat([center - low, high - center], dim=1)
    least, most = sides.new_tensor(ranges)[level].unbind(1)
    farthest = sides.amax(1)
    positive = (sides.amin(1) > INSIDE_MARGIN) & (farthest >= least) & (farthest <= most)

    object, level, column, row = (values[positive] for values in (object, level, column, row))
    cell = levels.first[level] + row * levels.sizes[0, level] + column
    first_anchor = objects.image[object] * len(grid) + cell * grid.num_per_cell
    anchors = first_anchor[:, None] + torch.arange(grid.num_per_cell, device=grid.device)
    areas = (objects.boxes[:, 2:] - objects.boxes[:, :2]).prod(1)
    worth, index = smallest_first(areas)[object, None].expand_as(anchors), objects.index[object, None]
    claims = Claims.of(anchors, worth.contiguous(), index, torch.ones_like(anchors, dtype=torch.bool))
    return Claims(*(values.flatten() for values in claims))


def smallest_first(areas):
    """Floats in reverse order, without rounding; `areas` and result float32 of any shape, not negative."""
    return (INFINITY_BITS - areas.view(torch.int32)).view(torch.float32)


def check_ranges(ranges):
    """The ranges as a tuple of pairs of float, or a ValueError that says what is wrong."""
    for pair in ranges:
        if not isinstance(pair, Sequence) or len(pair) != 2 or not 0 <= pair[0] < pair[1]:
            raise ValueError(f"ranges: expected (low, high) in pixels for every level, low before high, got {pair}")
    return tuple((float(low), float(high)) for low, high in ranges)


def check_levels(ranges, grid):
    """Check that there is a range for every level of the grid."""
    if len(ranges) != len(grid.shapes):
        raise ValueError(f"ranges: expected one for each of the {len(grid.shapes)} levels of grid, got {len(ranges)}")
