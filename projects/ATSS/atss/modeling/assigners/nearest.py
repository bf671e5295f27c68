"""The cells of every level that are nearest to a point, written down from its coordinates.

Rank the columns of a level by their distance to the point, nearest first, and the rows likewise; of equals the lower
index comes first. If the cell in the column of rank i and the row of rank j is one of the k nearest, then so are all
cells of no higher column rank and no higher row rank, because none of them is farther (and of equals they come first).
There are i j of them: hence i j <= k, and only the pairs of ranks with i j <= k need a look, 23 of them for k = 9. Of
the grid only the order of its columns and rows was used: this holds for every k, every point, inside the image or
not, and every grid, however small.

Coordinates are rounded to fixed point, so that distances are integers: what is equally far is equal, sums do not round,
and every device finds the same cells.
"""

import functools
from itertools import pairwise

import torch

# Coordinates are multiples of 2 ** -FRACTION_BITS of a cell, UNIT of which make a cell.
FRACTION_BITS = 22
UNIT = 1 << FRACTION_BITS
# Farther than any cell: the distance of a column or row that the level does not have.
FAR = 1 << 60
# With more candidates per level the distances of points in the image could leave 64 bits.
MAX_TOPK = 64
# Up to this k the nearest cells are found by looking at all staircases: 135 for 14.
MAX_STAIRCASE = 14


def check_topk(topk):
    """Raise a ValueError for a k out of range."""
    if not 1 <= topk <= MAX_TOPK:
        raise ValueError(f"topk: expected a number from 1 to {MAX_TOPK}, got {topk}")


def reach(k):
    """How far from the origin distances are exact, in UNITs of a cell; points farther away count as if they were there.

    2 ** 24 cells for k = 9, more than float32 tells apart, and 2 ** 16 for MAX_TOPK.
    """
    return min(1 << 52, (1 << 56) // k**3)


def ranked_positions(low, high, sizes, strides, offset, k):
    """The k nearest columns and rows of every level, by their distance to the centre of every box.

    The n nearest are n neighbours. They begin at ceil(u - n / 2), u being the centre in cells, or as near to it as the
    level allows. The one of rank n is what the sum of the n nearest positions has more than that of the n - 1 nearest.

    Args:
        low, high: (2, M) float32, x1 y1 and x2 y2 of the boxes in pixels, finite.
        sizes: (2, L) int64, number of columns and rows of every level.
        strides: (L,) float32, in pixels.
        offset: where a cell's centre lies, in strides from its corner.
        k: how many.

    Returns:
        positions: (2, k, L, M) int32 columns and rows, nearest first.
        distances: (2, k, L, M) int64, by how much the squared distance to a column (or row) exceeds that to the nearest
        one. The sum of a column's and a row's orders the cells of a level: by distance, then by index. FAR where the
        level has fewer than k columns (rows); the position there means nothing.
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
    # (r + s)^2 - r^2 = s (s + 2 r), r from the centre to the nearest and s steps on. Below it the index: in a level
    # columns count one and rows k, more than the columns looked at are apart.
    twice = ((nearest << FRACTION_BITS).sub_(centers)).mul_(2 * k * k)
    twice[0] += 1
    twice[1] += k
    distances = (steps * (k * k << FRACTION_BITS)).add_(twice).mul_(steps)
    return positions, distances.masked_fill_(rank > sizes, FAR)


def are_nearest(distances, k):
    """Which pairs of ranks are the k nearest cells of their level, or all it has.

    Args:
        distances: (2, k, L, M) int64 from `ranked_positions`.

    Returns:
        (P, L, M) bool, in the order of `pairs_of_ranks`.
    """
    distances = over_pairs(torch.add, distances[0], distances[1])
    return distances <= kth_smallest(distances, k).clamp_(max=FAR - 1)


def kth_smallest(distances, k):
    """The kth smallest of the distances (P, L, M) of all pairs of ranks: (L, M).

    In the table of column and row ranks the k nearest cells form a staircase, whose farthest cell is at a corner of a
    step. Every other staircase of k cells has a cell, hence a corner, that is no nearer. So what is looked for is the
    least, over all staircases, of the largest distance at their corners. There are 30 staircases for k = 9; where they
    become too many the distances themselves are sorted.
    """
    if k > MAX_STAIRCASE:
        return distances.topk(k, dim=0, largest=False, sorted=False).values.amax(0)
    distances = distances.unbind(0)
    farthest = (functools.reduce(torch.maximum, [distances[pair] for pair in corners]) for corners in staircases(k))
    return functools.reduce(torch.minimum, farthest)


def over_pairs(op, of_columns, of_rows):
    """`op` of what belongs to a column and what belongs to a row, for all pairs of ranks with i j <= k.

    Args:
        op: a function of torch with two tensors and `out`.
        of_columns, of_rows: (..., k, L, M), by rank.

    Returns:
        (..., P, L, M), in the order of `pairs_of_ranks`.
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
    """The pairs of ranks with i j <= k: row by row, nearest first, while rows have two columns; then the first column.

    Returns:
        list of (columns, first, rows): the nearest `columns` columns of `rows` rows, `first` and on, counted from 0.
    """
    wide = [(k // (row + 1), row, 1) for row in range(k // 2)]
    return [*wide, (1, len(wide), k - len(wide))]


@functools.cache
def pairs_of_ranks(k):
    """Column and row rank, counted from 0, of all P pairs with i j <= k."""
    return [(i, first + j) for columns, first, rows in blocks_of_ranks(k) for i in range(columns) for j in range(rows)]


@functools.cache
def rank_index(k, device):
    """(2, P) int64: where the column and the row of each pair stand in a tensor (2, k, ...)."""
    columns, rows = zip(*pairs_of_ranks(k), strict=True)
    return torch.tensor([columns, [k + row for row in rows]]).to(device)


@functools.cache
def staircases(k):
    """All staircases of k cells in the table of ranks: for each, the indices of the pairs at its corners."""
    index = {ranks: index for index, ranks in enumerate(pairs_of_ranks(k))}
    return [
        [index[width - 1, row] for row, (width, below) in enumerate(pairwise([*widths, 0])) if width > below]
        for widths in partitions(k, k)
    ]


def partitions(total, largest):
    """All ways to write `total` as a sum of positive integers that do not grow, none above `largest`."""
    if total == 0:
        yield []
    for first in range(min(total, largest), 0, -1):
        for rest in partitions(total - first, first):
            yield [first, *rest]
