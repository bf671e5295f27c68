"""Positives by IoU thresholds, as in RetinaNet (section 3.1, Table 2)."""

from typing import NamedTuple

import torch
from torch import Tensor

from .assigner import ASSIGNER_REGISTRY, Assigner
from .matches import IGNORED, INDEX_BITS, INDEX_MASK, INSIDE_MARGIN, NO_POSITIVE, Positives
from .windows import cells_in, window

# IoUs are computed in float32; windows that depend on an IoU allow for its rounding.
ROUNDING = 1e-4


@ASSIGNER_REGISTRY.register()
class IoUAssigner(Assigner):
    """Label an anchor by its highest IoU with a ground truth box.

    The anchor is positive from `positive` up, negative below `negative`, and ignored in between. The anchors with the
    highest IoU of all with a box, ties included, are positive however low that IoU is ("low-quality matches" in
    Detectron2's `Matcher`). A positive anchor is matched to the box with which its own IoU is highest, among equals to
    the one with the lower index. An anchor that overlaps no box is negative, and a box that overlaps no anchor has no
    positive. A box without area, or with coordinates that are not finite, matches nothing; one warning counts such
    boxes.

    Only anchors whose IoU can matter are visited, in a window per box and level: those that reach `negative`; the best
    anchors of a box that does not reach it; and the anchors on which another box competes with such a box.

    Args:
        positive, negative: IoU thresholds.
        center_in_box: True to ignore positives whose centre is not inside their box (Table 1).

    Raises:
        ValueError: thresholds that are not 0 < negative <= positive <= 1.
    """

    def __init__(self, positive: float = 0.5, negative: float = 0.4, center_in_box: bool = False):
        super().__init__()
        if not 0 < negative <= positive <= 1:
            raise ValueError(f"negative, positive: expected 0 < negative <= positive <= 1, got {negative}, {positive}")
        self.positive = positive
        self.negative = negative
        self.center_in_box = center_in_box

    def match(self, matches, gt, grid):
        best, contested = best_ious(gt, grid, self.negative)
        own = pairs_above(gt, grid, best.clamp(max=self.negative).where(best > 0, torch.inf).expand_as(contested))
        strongest = torch.full_like(matches, NO_POSITIVE).view(-1)
        compete(strongest, own)
        keeps = own.ious == best.scatter_reduce(0, own.boxes, own.ious, "amax", include_self=False)[own.boxes]
        below = torch.zeros_like(strongest, dtype=torch.bool)
        below[own.anchors[keeps & (own.ious < self.negative)]] = True
        compete(strongest, pairs_above(gt, grid, contested, below))

        # Label the anchors that reach `negative`, and the best of each box.
        matches, number = matches.view(-1), strongest[own.anchors]
        iou, box = (number >> INDEX_BITS).int().view(torch.float32), INDEX_MASK - (number & INDEX_MASK)
        positive = gt.index[box]
        if self.center_in_box:
            low, high = gt.boxes[box].t().split(2)
            inside = torch.cat([own.centers - low, high - own.centers]).amin(0) > INSIDE_MARGIN
            positive = positive.where(inside, IGNORED)
        above = iou >= self.negative
        matches[own.anchors[above]] = positive.where(iou >= self.positive, IGNORED)[above]
        matches[own.anchors[keeps]] = positive[keeps]


class Pairs(NamedTuple):
    """Q pairs of a ground truth box and an anchor.

    anchors: (Q,) int64, image * R + anchor.
    boxes: (Q,) int64, index in the batch.
    ious: (Q,) float32.
    centers: (2, Q) float32, x and y of the anchors, in pixels.
    """

    anchors: Tensor
    boxes: Tensor
    ious: Tensor
    centers: Tensor


def compete(strongest, pairs):
    """Raise `strongest` (N * R,), the best `Positives.keys` per anchor, where one of `pairs` has a higher one."""
    strongest.scatter_reduce_(0, *Positives.of(pairs.anchors, pairs.ious, pairs.boxes), "amax")


def best_ious(gt, grid, negative):
    """Highest IoUs, from the nearest cells alone.

    Returns:
        (M,), the highest IoU of every ground truth box with any anchor, up to rounding; and (A, L, M), by anchor of a
        cell and level, the lowest IoU with which a box can win an anchor that another box of the image keeps although
        it is below `negative`; infinite where there is no such anchor.
    """
    levels = grid.levels()
    low, high = gt.boxes.t()[:, None, None].split(2)
    # IoU decreases with the distance on each axis: the best anchors of a level are those of the nearest cell.
    cell = (low.double() + high) / 2 / levels.strides[:, None] - grid.offset
    cell = cell.round_().clamp_(min=0).minimum(levels.sizes[:, None, :, None] - 1).float()
    cell_low, cell_high = by_axis(levels.cell_anchors)
    common = overlaps(low, high, (cell + grid.offset) * levels.strides[:, None], cell_low, cell_high).prod(0)
    ious = ious_of(common, (cell_high - cell_low).prod(0) + (high - low).prod(0))
    best = ious.amax((0, 1))

    kept = best.where((ious >= best * (1 - ROUNDING)) & (best > 0) & (best < negative), torch.inf)
    image = gt.image.expand_as(kept)
    least = kept.new_full((*kept.shape[:2], gt.num_images), torch.inf).scatter_reduce_(2, image, kept, "amin")
    return best, least.gather(2, image)


def pairs_above(gt, grid, thresholds, among=None):
    """The `Pairs` whose IoU reaches `thresholds` (A, L, M), up to rounding; only `among` anchors (N * R,) bool."""
    levels, num_boxes = grid.levels(), len(gt.boxes)
    thresholds = thresholds * (1 - ROUNDING)
    low, high = gt.boxes.double().t()[:, None, None].split(2)
    cell_low, cell_high = by_axis(levels.cell_anchors.double())
    # IoU >= t means: intersection >= t / (1 + t) (area + area). It is no longer on one axis than the shorter side, so
    # it must be at least the following on the other.
    least = ((cell_high - cell_low).prod(0) + (high - low).prod(0)) / (1 + 1 / thresholds.double())
    shorter = torch.minimum(cell_high - cell_low, high - low)
    overlap = least / shorter.flip(0)
    first, size = window(
        (low + overlap - cell_high).where(overlap <= shorter, torch.inf), high - overlap - cell_low, grid
    )

    pairs = []
    for windows, which, column, row in cells_in(first, size):
        box, level = windows % num_boxes, windows // num_boxes % len(grid.shapes)
        in_cell = windows // (num_boxes * len(grid.shapes))
        first_anchor = gt.image[box] * len(grid) + levels.first[level] * grid.num_per_cell + in_cell
        anchors = first_anchor[which] + (row * levels.sizes[0, level][which] + column) * grid.num_per_cell
        if among is not None:
            anchors, which, column, row = torch.stack([anchors, which, column, row])[:, among[anchors]]
        # One gather brings what is constant in a window to its cells.
        x1_y1, x2_y2 = gt.boxes[box].t().split(2)
        sides = levels.cell_anchors[in_cell, :, :, level]
        areas = (sides[:, 1] - sides[:, 0]).prod(1) + (x2_y2 - x1_y1).prod(0)
        least, stride = thresholds.reshape(-1)[windows], levels.strides[level]
        of_windows = [x1_y1, x2_y2, sides[:, 0].t(), sides[:, 1].t(), stride[None], areas[None], least[None]]
        low, high, cell_low, cell_high, (stride, areas, least) = torch.cat(of_windows)[:, which].split([2, 2, 2, 2, 3])
        centers = (torch.stack([column, row]) + grid.offset) * stride
        ious = ious_of(overlaps(low, high, centers, cell_low, cell_high).prod(0), areas)
        found = (ious >= least) & (ious > 0)
        pairs.append(Pairs(anchors[found], box[which[found]], ious[found], centers[:, found]))
    return Pairs(*(torch.cat(values, dim=-1) for values in zip(*pairs, strict=True)))


def by_axis(cell_anchors):
    """`Levels.cell_anchors` -> low and high sides, (2 axes, A, L, 1) each."""
    return cell_anchors.permute(1, 2, 0, 3)[..., None].unbind(0)


def overlaps(low, high, centers, cell_low, cell_high):
    """Overlap of anchors and ground truth boxes (`low`, `high`) on an axis, in pixels; all arguments broadcast.

    The overlap of an anchor that lies in a box is exactly its own side, and vice versa, so that equal IoUs are bitwise
    equal. `cell_low` and `cell_high` are the anchors' sides relative to their `centers`.
    """
    inner = torch.minimum(high - (centers + cell_low), (centers + cell_high) - low)
    return inner.minimum(high - low).minimum(cell_high - cell_low).clamp_(min=0)


def ious_of(common, areas):
    """IoU of boxes with intersection `common` and a sum of areas `areas`."""
    return common / (areas - common)
