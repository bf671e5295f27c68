"""Positives by IoU alone, the same number per ground truth box (TOPK in the paper's code)."""

import torch

from .assigner import ASSIGNER_REGISTRY, Assigner
from .iou import ious_of, overlaps
from .matches import INDEX_BITS, INDEX_MASK, INSIDE_MARGIN, Positives
from .nearest import FAR, check_topk, over_pairs, pairs_of_ranks, rank_index, ranked_positions
from .windows import BLOCK


@ASSIGNER_REGISTRY.register()
class TopKIoUAssigner(Assigner):
    """The k anchors with the highest IoU, over all levels, are a box's positives if their centre lies in the box.

    Many anchors have the same IoU with a ground truth box that encloses them: of these the nearest are taken. As in the
    paper's code they are ordered by a score, the IoU less a thousandth of the distance between the centres, divided by
    the largest distance between any box of the image and any anchor. Equal scores are ordered by the anchor's index.

    An anchor that is positive for several boxes is matched to the one with the highest IoU, among equals to the one
    with the lower index. A box without area, or with coordinates that are not finite, matches nothing; one warning
    counts such boxes.

    IoU and score decrease with the distance of an anchor's column and row from the box's centre, so only the pairs of
    ranks in `nearest.py` are evaluated.

    Args:
        topk: k, anchors per box, up to 64.

    Raises:
        ValueError: topk out of range.
    """

    def __init__(self, topk: int = 9):
        super().__init__()
        check_topk(topk)
        self.topk = topk

    def positives(self, gt, grid):
        units = largest_distances(gt, grid)
        pairs_per_box = len(pairs_of_ranks(self.topk)) * len(grid.shapes) * grid.num_per_cell
        return [positives_of(block, units[block.image], grid, self.topk) for block in gt.split(BLOCK // pairs_per_box)]


def largest_distances(gt, grid):
    """The largest distance, in pixels, between a ground truth box of each image and an anchor: (N,) float32."""
    levels = grid.levels()
    center = (gt.boxes[:, :2] + gt.boxes[:, 2:]) / 2
    corners = torch.stack([torch.zeros_like(levels.sizes), levels.sizes - 1]) + grid.offset
    corners = (corners * levels.strides)[..., None]  # (2 ends, 2 axes, L, 1)
    squares = (corners - center.t()[:, None]).square().amax(0).sum(0).amax(0).where(gt.valid, 0)
    largest = squares.new_zeros(gt.num_images).scatter_reduce_(0, gt.image, squares.sqrt(), "amax")
    # Distances are divided by it, and it is 0 for a box centred on the only anchor.
    return largest.clamp_(min=torch.finfo(torch.float32).tiny)


def positives_of(gt, units, grid, k):
    """The `Positives` of M ground truth boxes; `units` (M,) are their image's `largest_distances`."""
    levels = grid.levels()
    low, high = gt.boxes.t().contiguous().split(2)
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
    scores = (ious - distances / 1000).where(exists & gt.valid, -torch.inf)

    columns, rows = positions.long()
    cells = over_pairs(torch.add, columns, rows * levels.sizes[0, :, None] + levels.first[:, None])
    anchors = cells * grid.num_per_cell + torch.arange(grid.num_per_cell, device=cells.device)[:, None, None, None]
    # int32 numbers that are ordered as the scores, of any sign.
    bits = scores.view(torch.int32)
    bits = bits.where(bits >= 0, bits ^ 0x7FFFFFFF)
    keys = bits.long() << INDEX_BITS | (INDEX_MASK - anchors)
    best = keys.flatten(0, 2).topk(min(k, keys[..., 0].numel()), dim=0, sorted=False).indices  # (k, M)

    pair_level = best % keys[0, ..., 0].numel()
    pair, level = pair_level // len(levels.strides), pair_level % len(levels.strides)
    box = torch.arange(best.shape[1], device=best.device).expand_as(best)
    margins = torch.minimum(centers - low, high - centers).flatten(0, 1)
    column, row = rank_index(k, best.device)[:, pair]
    inside = torch.minimum(margins[column, level, box], margins[row, level, box]) > INSIDE_MARGIN
    chosen = inside & scores.flatten(0, 2).gather(0, best).isfinite()
    box, best = box[chosen], best[chosen]
    ious = ious.flatten(0, 2)[best, box]
    anchors = gt.image[box] * len(grid) + anchors.flatten(0, 2)[best, box]
    return Positives.of(anchors, ious, gt.index[box], ious > 0)
