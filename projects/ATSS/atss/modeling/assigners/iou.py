"""Positives by IoU thresholds, as RetinaNet chooses them (section 3.1, Table 2)."""

from typing import NamedTuple

import torch

from .invalid import InvalidObjects
from .matches import (
    IGNORED,
    INDEX_BITS,
    INDEX_MASK,
    INSIDE_MARGIN,
    NO_CLAIM,
    Claims,
    Objects,
    check_arguments,
    unmatched,
)
from .registry import ASSIGNER_REGISTRY
from .windows import cells_in, window

# IoUs are computed in float32; where windows are drawn by one they allow for its rounding.
ROUNDING = 1e-4


@ASSIGNER_REGISTRY.register()
class IoUAssigner:
    """An anchor is positive where its highest IoU with an object reaches `positive`, negative where it is below
    `negative`, and ignored between.

    The anchors that have the highest IoU of all with an object, ties included, are positive however low that is.
    Every positive anchor goes to the object with which its own IoU is highest; of equals to the one with the lower
    index. An anchor that overlaps no object is negative: an object beyond all anchors keeps none.
    An object without area, or with coordinates that are not finite, matches nothing; a warning counts them, once.

    An object looks at the anchors whose IoU with it can matter, in a window of each level: those that reach `negative`;
    where its best does not, that best; and where another object's best does not, the anchors it may contest.

    Args:
        positive, negative: thresholds of the IoU, from 0 to 1.
        center_in_box: True to ignore positives whose centre is not inside their object (Table 1).

    Raises:
        ValueError: thresholds that are not 0 < negative <= positive <= 1.
    """

    def __init__(self, positive=0.5, negative=0.4, center_in_box=False):
        if not 0 < negative <= positive <= 1:
            raise ValueError(f"negative, positive: expected 0 < negative <= positive <= 1, got {negative}, {positive}")
        self.positive = positive
        self.negative = negative
        self.center_in_box = center_in_box
        self.invalid = InvalidObjects()

    @torch.no_grad()
    def __call__(self, grid, gt_boxes, ignore_boxes=None):
        """Match the anchors of N images to their objects: arguments, result and errors as in `ATSSAssigner`."""
        check_arguments(grid, gt_boxes, ignore_boxes)
        matches = unmatched(grid, len(gt_boxes), ignore_boxes)
        if not any(map(len, gt_boxes)):
            return matches
        objects = Objects.of(gt_boxes)
        self.invalid.report_now(objects.valid)

        best, contested = best_ious(objects, grid, len(gt_boxes), self.negative)
        own = pairs_above(objects, grid, best.clamp(max=self.negative).where(best > 0, torch.inf).expand_as(contested))
        strongest = torch.full_like(matches, NO_CLAIM).view(-1)
        settle(strongest, own)
        keeps = own.ious == best.scatter_reduce(0, own.objects, own.ious, "amax", include_self=False)[own.objects]
        below = own.anchors[keeps & (own.ious < self.negative)]
        settle(
            strongest,
            pairs_above(objects, grid, contested, torch.zeros_like(strongest, dtype=bool).index_fill_(0, below, True)),
        )
        self._label(matches.view(-1), strongest, own, keeps, objects)
        return matches

    def _label(self, matches, strongest, pairs, keeps, objects):
        """Write the labels of the anchors in `pairs`: of all that reach `negative`, and those that are kept."""
        number = strongest[pairs.anchors]
        iou, object = (number >> INDEX_BITS).int().view(torch.float32), INDEX_MASK - (number & INDEX_MASK)
        positive = objects.index[object]
        if self.center_in_box:
            low, high = objects.boxes[object].t().split(2)
            inside = torch.cat([pairs.centers - low, high - pairs.centers]).amin(0) > INSIDE_MARGIN
            positive = positive.where(inside, IGNORED)
        above = iou >= self.negative
        matches[pairs.anchors[above]] = positive.where(iou >= self.positive, IGNORED)[above]
        matches[pairs.anchors[keeps]] = positive[keeps]


class Pairs(NamedTuple):
    """Q pairs of an object and an anchor.

    anchors: (Q,) int64, image * R + anchor.
    objects: (Q,) int64, among those of the batch.
    ious: (Q,) float32.
    centers: (2, Q) float32, x and y of the anchors, in pixels.
    """

    anchors: torch.Tensor
    objects: torch.Tensor
    ious: torch.Tensor
    centers: torch.Tensor


def settle(strongest, pairs):
    """Raise the claims `strongest` (N R,) on anchors to those of `pairs`; objects have their number in the batch."""
    valid = torch.ones_like(pairs.anchors, dtype=torch.bool)
    strongest.scatter_reduce_(0, *Claims.of(pairs.anchors, pairs.ious, pairs.objects, valid), "amax")


def best_ious(objects, grid, num_images, negative):
    """How well anchors can match, from the nearest cells alone.

    Returns:
        (M,), the highest IoU of every object with any anchor, up to rounding; and (A, L, M), the least IoU that may win
        an anchor, by anchor of a cell and level, that another object of the image keeps below `negative`; infinite
        where there is none.
    """
    levels = grid.levels()
    low, high = objects.boxes.t()[:, None, None].split(2)
    # IoU falls with the distance on each axis, so a level's best anchors are those of the nearest cell.
    cell = (low.double() + high) / 2 / levels.strides[:, None] - grid.offset
    cell = cell.round_().clamp_(min=0).minimum(levels.sizes[:, None, :, None] - 1).float()
    cell_low, cell_high = by_axis(levels.cell_anchors)
    common = overlaps(low, high, (cell + grid.offset) * levels.strides[:, None], cell_low, cell_high).prod(0)
    ious = ious_of(common, (cell_high - cell_low).prod(0) + (high - low).prod(0))
    best = ious.amax((0, 1))

    kept = best.where((ious >= best * (1 - ROUNDING)) & (best > 0) & (best < negative), torch.inf)
    image = objects.image.expand_as(kept)
    least = kept.new_full((*kept.shape[:2], num_images), torch.inf).scatter_reduce_(2, image, kept, "amin")
    return best, least.gather(2, image)


def pairs_above(objects, grid, thresholds, wanted=None):
    """The `Pairs` of an object and an anchor whose IoU reaches `thresholds` (A, L, M), up to rounding.

    `wanted`, (N R,) bool, says which anchors to look at; None for all.
    """
    levels, num_objects, thresholds = grid.levels(), len(objects.boxes), thresholds * (1 - ROUNDING)
    low, high = objects.boxes.double().t()[:, None, None].split(2)
    cell_low, cell_high = by_axis(levels.cell_anchors.double())
    # IoU >= t means: intersection >= t / (1 + t) (area + area). On one axis that leaves at least the following, as on
    # the other it is no longer than the shorter side.
    least = ((cell_high - cell_low).prod(0) + (high - low).prod(0)) / (1 + 1 / thresholds.double())
    shorter = torch.minimum(cell_high - cell_low, high - low)
    overlap = least / shorter.flip(0)
    first, size = window(
        (low + overlap - cell_high).where(overlap <= shorter, torch.inf), high - overlap - cell_low, grid
    )

    pairs = [Pairs(*(objects.index[:0], objects.index[:0], objects.boxes[:0, 0], objects.boxes[:0, :2].t()))]
    for windows, which, column, row in cells_in(first, size):
        object, level = windows % num_objects, windows // num_objects % len(grid.shapes)
        in_cell = windows // (num_objects * len(grid.shapes))
        first_anchor = objects.image[object] * len(grid) + levels.first[level] * grid.num_per_cell + in_cell
        anchors = first_anchor[which] + (row * levels.sizes[0, level][which] + column) * grid.num_per_cell
        if wanted is not None:
            look = wanted[anchors].nonzero().squeeze(1)
            anchors, which, column, row = (values[look] for values in (anchors, which, column, row))
        # What is the same for all cells of a window travels to them in one gather.
        (x1_y1, x2_y2), sides = objects.boxes[object].t().split(2), levels.cell_anchors[in_cell, :, :, level]
        areas = (sides[:, 1] - sides[:, 0]).prod(1) + (x2_y2 - x1_y1).prod(0)
        least, stride = thresholds.reshape(-1)[windows], levels.strides[level]
        of_windows = [x1_y1, x2_y2, sides[:, 0].t(), sides[:, 1].t(), stride[None], areas[None], least[None]]
        low, high, cell_low, cell_high, rest = torch.cat(of_windows)[:, which].split([2, 2, 2, 2, 3])
        stride, areas, least = rest
        centers = (torch.stack([column, row]) + grid.offset) * stride
        ious = ious_of(overlaps(low, high, centers, cell_low, cell_high).prod(0), areas)
        found = (ious >= least) & (ious > 0)
        pairs.append(Pairs(anchors[found], object[which[found]], ious[found], centers[:, found]))
    return Pairs(*(torch.cat(values, dim=-1) for values in zip(*pairs, strict=True)))


def by_axis(cell_anchors):
    """`Levels.cell_anchors` -> low and high sides, (2 axes, A, L, 1) each."""
    return cell_anchors.permute(1, 2, 0, 3)[..., None].unbind(0)


def overlaps(low, high, centers, cell_low, cell_high):
    """How long an anchor and an object overlap on an axis, in pixels; all arguments of shapes that go together.

    An anchor that lies whole in an object overlaps it by exactly its own side, and the other way round, so that anchors
    with the same IoU have it to the last bit.

    Args:
        low, high: x1 or y1, and x2 or y2, of objects.
        centers: x or y of anchors.
        cell_low, cell_high: sides of anchors relative to their centres.
    """
    inner = torch.minimum(high - (centers + cell_low), (centers + cell_high) - low)
    return inner.minimum(high - low).minimum(cell_high - cell_low).clamp_(min=0)


def ious_of(common, areas):
    """IoU of boxes with intersection `common` and a sum of areas `areas`."""
    return common / (areas - common)
