"""Adaptive training sample selection: Algorithm 1 of the paper, for a whole batch at once."""

import math

import torch

from .assigner import ASSIGNER_REGISTRY, Assigner
from .backends import BACKENDS, settle_backend
from .matches import INSIDE_MARGIN, Positives
from .nearest import are_nearest, check_topk, over_pairs, pairs_of_ranks, rank_index, ranked_positions

# Pairs of a ground truth box and an anchor that the torch backend holds in memory at a time.
BLOCK = 1 << 19
# Pairs per ground truth box that a program of the triton backend holds, each dimension rounded up to a power of two:
# k = 64 with 3 anchors per cell and five levels. More would not fit every GPU's shared memory.
MAX_SLOTS = 1 << 14


@ASSIGNER_REGISTRY.register()
class ATSSAssigner(Assigner):
    """Choose the positives of every ground truth box by the statistics of its nearest anchors (section 3.2).

    On each level the k anchors nearest to the box's centre are its candidates (k x A where a cell has A anchors).
    A candidate is positive if its IoU with the box is at least the mean plus the standard deviation of all the box's
    candidates, and if its centre lies in the box. An anchor that is positive for several boxes is matched to the one
    with the highest IoU.

    The cost is a few dozen candidates per box and level, whatever the size of the image. `nearest.py` shows why these
    suffice, for every k, every grid and any centre.

    What the paper leaves open, the same in both backends:

    - anchors at equal distance are ordered by index; a level with fewer than k cells gives all of them;
    - the standard deviation is that of a sample (divided by n - 1), and 0 for a single candidate;
    - if all candidates have the same IoU, all whose centre is inside the box are positive;
    - among boxes with equal IoU, identical boxes included, the one with the lower index is matched;
    - an anchor that does not overlap a box never matches it;
    - a box without area, or with coordinates that are not finite, matches nothing; one warning counts such boxes.

    Args:
        topk: k, candidates per box and level (and per anchor of a cell), up to 64.
        backend: "torch" runs on every device. "triton" runs on CUDA, in two kernel launches and without device
            synchronisation, and gives the same matches. "auto" is triton on CUDA, and torch elsewhere or if a box has
            more than MAX_SLOTS candidates. To capture triton in a CUDA graph, call the assigner once before, and keep
            it as long as the graph.

    Raises:
        ValueError: topk out of range, or unknown backend.
    """

    def __init__(self, topk: int = 9, backend: str = "auto"):
        super().__init__()
        check_topk(topk)
        if backend not in BACKENDS:
            raise ValueError(f"backend: expected one of {', '.join(map(repr, BACKENDS))}, got {backend!r}")
        self.topk = topk
        self.backend = backend

    def assign(self, grid, gt_boxes, ignore_boxes):
        sizes = (len(grid.shapes), len(pairs_of_ranks(self.topk)), grid.num_per_cell)
        slots = math.prod(1 << (size - 1).bit_length() for size in sizes)
        if settle_backend(self.backend, grid.device, fits=slots <= MAX_SLOTS) == "triton":
            from .kernels.atss import assign_with_triton

            return assign_with_triton(grid, gt_boxes, ignore_boxes, self.topk, self.invalid)
        return super().assign(grid, gt_boxes, ignore_boxes)

    def positives(self, gt, grid):
        pairs_per_box = len(pairs_of_ranks(self.topk)) * len(grid.shapes) * grid.num_per_cell
        return [positives_of(block, grid, self.topk) for block in gt.split(BLOCK // pairs_per_box)]


def positives_of(gt, grid, k):
    """Lines 2 to 17 of Algorithm 1 for M ground truth boxes at once.

    Dimensions of the tensors: (2,) axes x and y, or (A,) anchors of a cell; (k,) ranks of columns or rows, or (P,)
    pairs of ranks; (L,) levels; (M,) ground truth boxes.
    """
    levels = grid.levels()
    low, high = gt.boxes.t().contiguous().split(2)

    # Lines 3 to 6: the cells of the candidates.
    positions, distances = ranked_positions(low, high, levels.sizes, levels.strides, grid.offset, k)
    chosen = are_nearest(distances, k).float()
    del distances
    centers = (positions + grid.offset) * levels.strides[:, None]
    low, high = low[:, None, None], high[:, None, None]

    # Line 7: IoUs, 0 for pairs that are no candidates.
    ious = pair_ious(low, high, centers, levels.cell_anchors).mul_(chosen)

    # Lines 8 to 10: mean, standard deviation and threshold.
    # Divisors are tensors: CUDA multiplies by the reciprocal of a Python number, which rounds differently.
    num_candidates = grid.num_candidates(k)
    count, degrees = (ious.new_full((), n, dtype=torch.float64) for n in (num_candidates, max(1, num_candidates - 1)))
    mean = ordered_sum(ious) / count
    deviations = (ious - mean.float()).mul_(chosen)
    std = (ordered_sum(deviations.square_()) / degrees).sqrt()
    del deviations, chosen
    threshold = (mean + std).float().clamp_(min=torch.finfo(torch.float32).tiny).where(gt.valid, torch.inf)

    # Lines 11 to 15: candidates that reach the threshold, and lie inside the box. From here on tensors are (Q,).
    num_pairs, num_levels, num_boxes = ious.shape[1:]
    above = (ious >= threshold).view(-1).nonzero().view(-1)
    in_cell, level_box = above // ious[0].numel(), above % (num_levels * num_boxes)
    pair, box = above // (num_levels * num_boxes) % num_pairs, above % num_boxes
    column, row = rank_index(k, above.device)[:, pair] * (num_levels * num_boxes) + level_box
    margins = torch.minimum(centers - low, high - centers)
    inside = torch.minimum(margins.take(column), margins.take(row)) > INSIDE_MARGIN

    positions[1].mul_(levels.sizes[0, :, None]).add_(levels.first[:, None])
    cells = positions.take(column).long() + positions.take(row)
    anchors = gt.image[box] * len(grid) + cells * grid.num_per_cell + in_cell
    return Positives.of(anchors, ious.take(above), gt.index[box], inside)


def pair_ious(low, high, centers, cell_anchors):
    """IoU (A, P, L, M) of boxes `low`, `high` (2, 1, 1, M) with the anchors at all pairs of ranks.

    `centers` (2, k, L, M) are those of the cells by rank, `cell_anchors` (A, 2, 2, L) as in `Levels`.
    """
    anchor_low, anchor_high = cell_anchors[:, :, :, None, :, None].unbind(1)
    common = torch.minimum(centers + anchor_high, high).sub_(torch.maximum(centers + anchor_low, low)).clamp_(min=0)
    common = over_pairs(torch.mul, common[:, 0], common[:, 1])
    areas = (anchor_high - anchor_low).prod(1) + (high - low).prod(0)
    return common.div_(areas - common)


def ordered_sum(values):
    """Sum (A, P, L, M) over all but the last dimension: (M,) float64, bitwise the same on every device.

    Rounding depends on the order of additions, which is fixed here: the halves of a dimension are added until one
    element is left, dimension by dimension.
    """
    for size in values.shape[:-1]:
        while size > 1:
            half = 1 << (size - 1).bit_length() >> 1
            values, rest = values.tensor_split((half,))
            values = values.double()
            values.narrow(0, 0, size - half).add_(rest)
            size = half
        values = values[0]
    return values.double()
