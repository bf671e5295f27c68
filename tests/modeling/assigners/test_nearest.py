"""The k nearest cells of a point, against all cells sorted by exact distance."""

from fractions import Fraction

import pytest
import torch

from atss.modeling.assigners import nearest

pytestmark = pytest.mark.slow

SHAPES = [(1, 1), (1, 30), (30, 1), (2, 3), (5, 5), (9, 9), (20, 30)]


def nearest_cells(points, shape, stride, offset, k):
    """Cells (row, column) by point."""
    height, width = shape
    low = high = torch.tensor(points, dtype=torch.float32).t()
    sizes, strides = torch.tensor([[width], [height]]), torch.tensor([float(stride)])
    (columns, rows), distances = nearest.ranked_positions(low, high, sizes, strides, offset, k)
    chosen, pairs = nearest.are_nearest(distances, k), nearest.pairs_of_ranks(k)
    return [
        {(int(rows[pairs[p][1], 0, m]), int(columns[pairs[p][0], 0, m])) for p in chosen[:, 0, m].nonzero()}
        for m in range(len(points))
    ]


def sorted_cells(point, shape, stride, offset, k):
    x, y = map(Fraction, point)
    centers = {
        (row, column): ((column + Fraction(offset)) * stride - x) ** 2 + ((row + Fraction(offset)) * stride - y) ** 2
        for row in range(shape[0])
        for column in range(shape[1])
    }
    return set(sorted(centers, key=lambda cell: (centers[cell], cell))[:k])


@pytest.mark.parametrize("k", range(1, 26))
def test_they_are_the_k_nearest_with_the_lower_index_first_of_equals(k):
    """Points in the image, on its border and its corners, on cells' centres and corners, and outside."""
    generator = torch.Generator().manual_seed(k)
    for shape in SHAPES:
        for stride, offset in ((8, 0.5), (8, 0.0), (32, 0.5)):
            height, width = shape[0] * stride, shape[1] * stride
            # Multiples of an eighth of a pixel: binary fractions, so that ties are exact.
            spots = torch.rand(6, 2, generator=generator) * torch.tensor([width, height])
            points = ((spots * 8).round() / 8).tolist()
            half = stride / 2
            points += [[0, 0], [width, height], [width, 0], [half, half], [width / 2, height / 2], [stride, half]]
            points += [[-3.25, 7], [width + 5 * stride, -2 * stride], [width / 2, 40.5 * height], [-9e5, 3e5]]

            found = nearest_cells(points, shape, stride, offset, k)

            for point, cells in zip(points, found, strict=True):
                assert cells == sorted_cells(point, shape, stride, offset, k), (point, shape, stride, offset)


@pytest.mark.parametrize("k", [1, 2, 5, 9, 14, 15, 40])
def test_the_kth_smallest_of_sums_of_sorted_numbers(k):
    generator = torch.Generator().manual_seed(0)
    columns, rows = (torch.rand(k, 1, 200, generator=generator).cumsum(0) ** 2 for _ in range(2))
    table = (columns[None] + rows[:, None]).flatten(0, 1)

    found = nearest.kth_smallest(nearest.over_pairs(torch.add, columns, rows), k)

    assert torch.equal(found, table.sort(0).values[k - 1])


def test_pairs_of_ranks():
    for k in range(1, 65):
        expected = {(i, j) for i in range(k) for j in range(k) if (i + 1) * (j + 1) <= k}
        assert len(nearest.pairs_of_ranks(k)) == len(expected) and set(nearest.pairs_of_ranks(k)) == expected
    assert len(nearest.pairs_of_ranks(9)) == 23


def test_staircases_are_the_partitions_of_k():
    assert [len(nearest.staircases(k)) for k in (1, 2, 3, 9, 14)] == [1, 2, 3, 30, 135]
