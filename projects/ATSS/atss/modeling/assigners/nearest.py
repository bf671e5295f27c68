"""The cells of every level that are nearest to a point, computed from its coordinates.

Rank the columns of a level by their distance to the point, nearest first, and the rows likewise; equal distances are
ordered by index. If the cell in the column of rank i and the row of rank j is one of the k nearest, then so are all
cells of column rank <= i and row rank <= j: none of them is farther, and among equals they come first. There are i * j
of them, hence i * j <= k, and only the pairs of ranks with i * j <= k need to be compared, 23 of them for k = 9. This
depends on nothing but the order of the columns and rows: it holds for every k, every grid, and every point, inside the
image or not.

Coordinates are rounded to fixed point, so that distances are integers: equal distances compare equal, sums are exact,
and all devices find the same cells.
"""

import functools
from itertools import pairwise

import torch

# Coordinates are integers, UNIT per cell.
FRACTION_BITS = 22
UNIT = 1 << FRACTION_BITS
# Distance of a column or row that the level does not have: farther than any cell.
FAR = 1 << 60
# Above this k, distances of points in the image could exceed 64 bits.
MAX_TOPK = 64
# Up to this k the nearest cells are found through all staircases (see `kth_smallest`): 135 for k = 14.
MAX_STAIRCASE = 14


def check_topk(topk):
    """Raise a ValueError if k is out of range."""
    if not 1 <= topk <= MAX_TOPK:
        raise ValueError(f"topk: expected a number from 1 to {MAX_TOPK}, got {topk}")


def reach(k):
    """Largest coordinate for which distances are exact, in 1 / UNIT of a cell; points beyond are clamped to it.

    2 ** 24 cells for k = 9, the limit of float32's precision, and 2 ** 16 for MAX_TOPK.
    """
    return min(1 << 52, (1 << 56) // k**3)


def ranked_positions(low, high, sizes, strides, offset, k):
    """The k columns and rows of every level that are nearest to the centre of every box.

    The n nearest columns are adjacent and begin at ceil(u - n / 2), where u is the centre in cells, clamped to the
    level. The column of rank n is the sum of the n nearest minus the sum of the n - 1 nearest.

    Args:
        low, high: (2, M) float32, x1 y1 and x2 y2 of the boxes in pixels, finite.
        sizes: (2, L) int64, number of columns and rows of every level.
        strides: (L,) float32, in pixels.
        offset: where a cell's centre lies, in strides from its corner.
        k: number of columns and rows.

    Returns:
        positions: (2, k, L, M) int32 columns and rows, nearest first.
        distances: (2, k, L, M) int64, squared distance to the column (row) minus that to the nearest one. The sum of a
        column's and a row's distance orders the cells of a level by distance, then by index. FAR, with an undefined
        position, where the level has fewer columns (rows).
    """
    rank, sizes = torch.arange(1, k + 1, device=low.device)[:, None, None], sizes[:, None, :, None]
    centers = (low.double() + high)[:, None] / (strides.double() * (2 / UNIT))[:, None]
    centers = centers.add_(0.5).floor_().sub_(round(offset * UNIT)).clamp_(-reach(k), reach(k)).long()[:, None]

    first = (centers + (UNIT - 1 - rank * (UNIT // 2))).bitwise_right_shift_(FRACTION_BITS)
    first = first.clamp_(min=0).minimum(sizes - rank).int()
    rank = rank.int()
    sums = first * rank
    positions = sums + (rank - 1)
    positions[:, 1:] -= sums[:, :-1]

    nearest = positions[:, :1].long()
    steps = positions - nearest
    # (r + s)^2 - r^2 = s (s + 2 r), where r is the distance to the nearest and s the number of steps from there. The
    # low digits hold the index: 1 per column and k per row, since the columns in question are less than k apart.
    twice = ((nearest << FRACTION_BITS).sub_(centers)).mul_(2 * k * k)
    twice[0] += 1
    twice[1] += k
    distances = (steps * (k * k << FRACTION_BITS)).add_(twice).mul_(steps)
    return positions, distances.masked_fill_(rank > sizes, FAR)


def are_nearest(distances, k):
    """Mark the pairs of ranks that are the k nearest cells of their level, or all of its cells if it has fewer.

    Takes the distances (2, k, L, M) of `ranked_positions`; returns (P, L, M) bool, in the order of `pairs_of_ranks`.
    """
    distances = over_pairs(torch.add, distances[0], distances[1])
    return distances <= kth_smallest(distances, k).clamp_(max=FAR - 1)


def kth_smallest(distances, k):
    """The kth smallest of the distances (P, L, M) of all pairs of ranks: (L, M).

    In the table of column and row ranks the k nearest cells form a staircase (a Young diagram), and its farthest cell
    is at a corner. Every other staircase of k cells has a corner that is at least as far. The kth smallest distance is
    therefore the minimum, over all staircases, of the maximum at their corners. There are 30 staircases for k = 9; for
    large k sorting is faster.
    """
    if k > MAX_STAIRCASE:
        return distances.topk(k, dim=0, largest=False, sorted=False).values.amax(0)
    distances = distances.unbind(0)
    farthest = (functools.reduce(torch.maximum, [distances[pair] for pair in corners]) for corners in staircases(k))
    return functools.reduce(torch.minimum, farthest)


def over_pairs(op, of_columns, of_rows):
    """Apply a torch function to values of columns and rows (..., k, L, M), for all pairs of ranks with i * j <= k.

    Returns (..., P, L, M), in the order of `pairs_of_ranks`.
    """
    *batch, k, levels, objects = of_columns.shape
    blocks = blocks_of_ranks(k)
    sizes = [columns * rows for columns, _, rows in blocks]
    out = of_columns.new_empty(*batch, sum(sizes), levels, objects)
    for (columns, first, rows), part in zip(blocks, out.split(sizes, dim=-3), strict=True):
        op(of_columns.narrow(-3, 0, columns), of_rows.narrow(-3, first, rows), out=part)
    return out


@functools.cache
def blocks_of_ranks(k):
    """The pairs of ranks with i * j <= k as rectangles: row by row while a row has two columns; then the first column.

    Each is (columns, first, rows): the nearest `columns` columns of the `rows` rows from rank `first` (from 0) on.
    """
    wide = [(k // (row + 1), row, 1) for row in range(k // 2)]
    return [*wide, (1, len(wide), k - len(wide))]


@functools.cache
def pairs_of_ranks(k):
    """Column and row rank, from 0, of all P pairs with i * j <= k."""
    return [(i, first + j) for columns, first, rows in blocks_of_ranks(k) for i in range(columns) for j in range(rows)]


@functools.cache
def rank_index(k, device):
    """(2, P) int64: index of the column and of the row of each pair in a tensor (2 * k, ...)."""
    columns, rows = zip(*pairs_of_ranks(k), strict=True)
    return torch.tensor([columns, [k + row for row in rows]]).to(device)


@functools.cache
def staircases(k):
    """All staircases of k cells in the table of ranks, each as the indices of the pairs at its corners."""
    index = {ranks: index for index, ranks in enumerate(pairs_of_ranks(k))}
    return [
        [index[width - 1, row] for row, (width, below) in enumerate(pairwise([*widths, 0])) if width > below]
        for widths in partitions(k, k)
    ]


def partitions(total, largest):
    """All ways to write `total` as a non-increasing sum of positive integers up to `largest`."""
    if total == 0:
        yield []
    for first in range(min(total, largest), 0, -1):
        for rest in partitions(total - first, first):
            yield [first, *rest]
