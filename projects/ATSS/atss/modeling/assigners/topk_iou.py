"""Positives by IoU alone, the same number for every object (TOPK in the paper's code)."""

import torch

from .invalid import InvalidObjects
from .iou import ious_of, overlaps
from .matches import (
    INDEX_BITS,
    INDEX_MASK,
    INSIDE_MARGIN,
    Claims,
    Objects,
    check_arguments,
    resolve_claims,
    unmatched,
)
from .nearest import FAR, check_topk, over_pairs, pairs_of_ranks, rank_index, ranked_positions
from .registry import ASSIGNER_REGISTRY
from .windows import BLOCK


@ASSIGNER_REGISTRY.register()
class TopKIoUAssigner:
    """The k anchors with the highest IoU, over all levels, are an object's positives, if their centre lies in it.

    Many anchors have the same IoU with an object that lies in them whole: of these the nearest count. As in the paper's
    code that is done by a score, the IoU less a thousandth of the distance between the centres, in units of the largest
    distance of any object of the image from any anchor. Of equal scores the anchor with the lower index comes first.

    An anchor that several objects claim goes to the one with the highest IoU, of equals to that with the lower index.
    An object without area, or with coordinates that are not finite, matches nothing; a warning counts them, once.

    IoU and score fall with the distance of an anchor's column and of its row from the object's centre, so that only the
    pairs of ranks need a look that `atss.assigners.nearest` lists.

    Args:
        topk: k, anchors per object, up to 64.

    Raises:
        ValueError: topk out of range.
    """

    def __init__(self, topk=9):
        check_topk(topk)
        self.topk = topk
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
        units = largest_distances(objects, grid, len(gt_boxes))[objects.image]
        size = max(1, BLOCK // (len(pairs_of_ranks(self.topk)) * len(grid.shapes) * grid.num_per_cell))
        blocks = zip(*(part.split(size) for part in (*objects, units)), strict=True)
        claims = [claims_of(Objects(*block), unit, grid, self.topk) for *block, unit in blocks]
        resolve_claims(matches, Claims(*map(torch.cat, zip(*claims, strict=True))))
        return matches


def largest_distances(objects, grid, num_images):
    """The largest distance, in pixels, between an object of an image and an anchor: (N,) float32."""
    levels = grid.levels()
    center = (objects.boxes[:, :2] + objects.boxes[:, 2:]) / 2
    corners = torch.stack([torch.zeros_like(levels.sizes), levels.sizes - 1]) + grid.offset
    corners = (corners * levels.strides)[..., None]  # (2 ends, 2 axes, L, 1)
    squares = (corners - center.t()[:, None]).square().amax(0).sum(0).amax(0).where(objects.valid, 0)
    largest = squares.new_zeros(num_images).scatter_reduce_(0, objects.image, squares.sqrt(), "amax")
    # Not 0 for an object centred on the only anchor: distances are divided by it.
    return largest.clamp_(min=torch.finfo(torch.float32).tiny)


def claims_of(objects, units, grid, k):
    """The `Claims` of M objects, before conflicts are resolved; `units` (M,): see `largest_distances`.

    Tensors are laid out as in `atss.assigners.atss`.
    """
    levels = grid.levels()
    low, high = objects.boxes.t().contiguous().split(2)
    positions, fixed = ranked_positions(low, high, levels.sizes, levels.strides, grid.offset, k)
    exists = over_pairs(torch.add, fixed[0], fixed[1]) < FAR
    centers = (positions + grid.offset) * levels.strides[:, None]
    low, high = low[:, None, None], high[:, None, None]

    cell_low, cell_high = levels.cell_anchors[:, :, :, None, :, None].unbind(1)
    common = overlaps(low, high, centers, cell_low, cell_high)
    common = over_pairs(torch.mul, common[:, 0], common[:, 1])
    ious = ious_of(common, (cell_high - cell_low).prod(1) + (high - low).prod(0))
    squares = (centers - (low + high) / 2).square()
    distances = over_pairs(torch.add, squares[0], squares[1]).sqrt_() / units
    scores = (ious - distances / 1000).where(exists & objects.valid, -torch.inf)

    columns, rows = positions.long()
    cells = over_pairs(torch.add, columns, rows * levels.sizes[0, :, None] + levels.first[:, None])
    anchors = cells * grid.num_per_cell + torch.arange(grid.num_per_cell, device=cells.device)[:, None, None, None]
    keys = ordered_bits(scores).long() << INDEX_BITS | (INDEX_MASK - anchors)
    best = keys.flatten(0, 2).topk(min(k, keys[..., 0].numel()), dim=0, sorted=False).indices  # (k, M)

    pair_level = best % keys[0, ..., 0].numel()
    pair, level = pair_level // len(levels.strides), pair_level % len(levels.strides)
    object = torch.arange(best.shape[1], device=best.device).expand_as(best)
    margins = torch.minimum(centers - low, high - centers).flatten(0, 1)
    column, row = rank_index(k, best.device)[:, pair]
    inside = torch.minimum(margins[column, level, object], margins[row, level, object]) > INSIDE_MARGIN
    chosen = inside & scores.flatten(0, 2).gather(0, best).isfinite()
    object, best = object[chosen], best[chosen]
    ious = ious.flatten(0, 2)[best, object]
    anchors = objects.image[object] * len(grid) + anchors.flatten(0, 2)[best, object]
    return Claims.of(anchors, ious, objects.index[object], ious > 0)


def ordered_bits(values):
    """int32 numbers in the order of float32 `values` of any sign."""
    bits = values.view(torch.int32)
    return bits.where(bits >= 0, bits ^ 0x7FFFFFFF)
