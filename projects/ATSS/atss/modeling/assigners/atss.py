"""Adaptive training sample selection: Algorithm 1 of the paper, for a whole batch at once."""

import math

import torch

from .backends import check_backend, settle_backend
from .invalid import InvalidObjects
from .matches import INSIDE_MARGIN, Claims, Objects, check_arguments, resolve_claims, unmatched
from .nearest import are_nearest, check_topk, over_pairs, pairs_of_ranks, rank_index, ranked_positions
from .registry import ASSIGNER_REGISTRY

# Pairs of an object and an anchor that the torch backend holds at a time: larger batches are worked off in blocks, so
# that only their claims and matches grow.
BLOCK = 1 << 19
# Pairs of an object and an anchor, rounded up to powers of two a dimension, that a program of the triton backend holds:
# k = 64 with 3 anchors per cell and five levels. More would not fit every GPU's shared memory.
MAX_SLOTS = 1 << 14


@ASSIGNER_REGISTRY.register()
class ATSSAssigner:
    """Every object chooses its positives by the statistics of its nearest anchors (section 3.2, Algorithm 1).

    On each level the k anchors nearest to the object's centre are its candidates (k x A where a cell has A anchors).
    Those whose IoU with it reaches the mean plus the standard deviation of all its candidates' IoUs, and whose centre
    lies in it, are positive. An anchor that several objects claim goes to the one with the highest IoU.

    Nothing is computed for all anchors: an object costs a few dozen candidates per level, whatever the image's size.
    `atss.assigners.nearest` says why these are enough, for every k, every grid and centres anywhere.

    Where the paper leaves a choice, and the same in both backends:

    - of anchors equally far the one with the lower index comes first; a level with fewer than k cells gives all it has;
    - the standard deviation is that of a sample (divided by n - 1), and 0 for a single candidate;
    - candidates that all have the same IoU reach it: those inside the object are positive;
    - of objects with equal IoU, identical ones among them, the one with the lower index wins the anchor;
    - an anchor that does not overlap an object never matches it;
    - an object without area, or with coordinates that are not finite, matches nothing. A warning counts them, once.

    Args:
        topk: k, candidates of an object on every level (and for each anchor of a cell), up to 64.
        backend: "torch" runs on every device; "triton" on CUDA, in two kernel launches, without waiting for the device
            and with the same matches; "auto" is triton on CUDA and torch elsewhere, and where k and A are so large that
            an object has more than MAX_SLOTS candidates. To capture triton in a CUDA graph, call the assigner once
            before, and keep it as long as the graph.

    Raises:
        ValueError: topk out of range, or no such backend.
    """

    def __init__(self, topk=9, backend="auto"):
        check_topk(topk)
        check_backend(backend)
        self.topk = topk
        self.backend = backend
        self.invalid = InvalidObjects()

    @torch.no_grad()
    def __call__(self, grid, gt_boxes, ignore_boxes=None):
        """Match the anchors of N images to their objects.

        Args:
            grid: the `AnchorGrid` of the (padded) images: R anchors, centred on their cells.
            gt_boxes: list of N float tensors (G_i, 4), x1 y1 x2 y2 in pixels, on the grid's device.
            ignore_boxes: the same for regions without loss, or None: an anchor whose centre lies in one and that
                matches no object is ignored.

        Returns:
            (N, R) int64: index of the object within its image, -1 for background, -2 for ignored.

        Raises:
            TypeError, ValueError: an argument that does not fit, by name, before anything is computed.
        """
        check_arguments(grid, gt_boxes, ignore_boxes)
        sizes = (len(grid.shapes), len(pairs_of_ranks(self.topk)), grid.num_per_cell)
        slots = math.prod(1 << (size - 1).bit_length() for size in sizes)
        if settle_backend(self.backend, grid.device, fits=slots <= MAX_SLOTS) == "triton":
            from .kernels.atss import assign_with_triton as assign
        else:
            assign = assign_with_torch
        return assign(grid, gt_boxes, ignore_boxes, self.topk, INSIDE_MARGIN, self.invalid)


def assign_with_torch(grid, gt_boxes, ignore_boxes, k, inside_margin, invalid):
    """The matches (N, R) by Algorithm 1 in PyTorch; the arguments are those of `ATSSAssigner`."""
    matches = unmatched(grid, len(gt_boxes), ignore_boxes)
    if not any(map(len, gt_boxes)):
        return matches
    objects = Objects.of(gt_boxes)
    invalid.report_now(objects.valid)
    objects_a_block = max(1, BLOCK // (len(pairs_of_ranks(k)) * len(grid.shapes) * grid.num_per_cell))
    blocks = zip(*(part.split(objects_a_block) for part in objects), strict=True)
    claims = [claims_of(Objects(*block), grid, k, inside_margin) for block in blocks]
    resolve_claims(matches, Claims(*map(torch.cat, zip(*claims, strict=True))))
    return matches


def claims_of(objects, grid, k, inside_margin):
    """The positives of M objects, before conflicts are resolved: lines 2 to 17 of Algorithm 1, all objects at once.

    Tensors are laid out as (2,) axes x and y, or (A,) anchors of a cell; (k,) ranks of columns or rows, or (P,) pairs
    of them; (L,) levels; (M,) objects.
    """
    levels = grid.levels()
    low, high = objects.boxes.t().contiguous().split(2)

    # Lines 3 to 6: the cells of the candidates.
    positions, distances = ranked_positions(low, high, levels.sizes, levels.strides, grid.offset, k)
    chosen = are_nearest(distances, k).float()
    del distances
    centers = (positions + grid.offset) * levels.strides[:, None]
    low, high = low[:, None, None], high[:, None, None]

    # Line 7: their IoUs, 0 for the pairs that are no candidates.
    ious = pair_ious(low, high, centers, levels.cell_anchors).mul_(chosen)

    # Lines 8 to 10: mean, standard deviation and threshold.
    # Divisors are tensors: by a number CUDA multiplies with its reciprocal, which rounds in another way.
    num_candidates = grid.num_candidates(k)
    count, degrees = (ious.new_full((), n, dtype=torch.float64) for n in (num_candidates, max(1, num_candidates - 1)))
    mean = ordered_sum(ious) / count
    deviations = (ious - mean.float()).mul_(chosen)
    std = (ordered_sum(deviations.square_()) / degrees).sqrt()
    del deviations, chosen
    threshold = (mean + std).float().clamp_(min=torch.finfo(torch.float32).tiny).where(objects.valid, torch.inf)

    # Lines 11 to 15: positive are those that reach the threshold and are inside. From here on one number stands for
    # each of the Q that reach it.
    num_pairs, num_levels, num_objects = ious.shape[1:]
    above = (ious >= threshold).view(-1).nonzero().view(-1)
    in_cell, level_object = above // ious[0].numel(), above % (num_levels * num_objects)
    pair, object = above // (num_levels * num_objects) % num_pairs, above % num_objects
    column, row = rank_index(k, above.device)[:, pair] * (num_levels * num_objects) + level_object
    margins = torch.minimum(centers - low, high - centers)
    inside = torch.minimum(margins.take(column), margins.take(row)) > inside_margin

    positions[1].mul_(levels.sizes[0, :, None]).add_(levels.first[:, None])
    cells = positions.take(column).long() + positions.take(row)
    anchors = objects.image[object] * len(grid) + cells * grid.num_per_cell + in_cell
    return Claims.of(anchors, ious.take(above), objects.index[object], inside)


def pair_ious(low, high, centers, cell_anchors):
    """IoU of every object with the anchors at all pairs of ranks.

    Args:
        low, high: (2, 1, 1, M), x1 y1 and x2 y2 of the objects.
        centers: (2, k, L, M), x and y of the cells by rank.
        cell_anchors: (A, 2, 2, L), see `Levels`.

    Returns:
        (A, P, L, M) float32.
    """
    anchor_low, anchor_high = cell_anchors[:, :, :, None, :, None].unbind(1)
    common = torch.minimum(centers + anchor_high, high).sub_(torch.maximum(centers + anchor_low, low)).clamp_(min=0)
    common = over_pairs(torch.mul, common[:, 0], common[:, 1])
    areas = (anchor_high - anchor_low).prod(1) + (high - low).prod(0)
    return common.div_(areas - common)


def ordered_sum(values):
    """Sum of (A, P, L, M) over all but the last dimension: (M,) float64, the same on every device to the last bit.

    Sums round, hence depend on the order: halves of a dimension are added until one is left, dimension by dimension.
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
