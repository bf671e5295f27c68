import torch

from atss.modeling.anchors import AnchorGrid, make_cell_anchors
from atss.modeling.assigners import windows
from tests.modeling.assigners.boxes import grid_of


def test_a_window_holds_every_centre_between_two_points_and_hardly_more():
    generator, grid = torch.Generator().manual_seed(0), grid_of(100, 150)
    low = torch.rand(2, 5, 200, generator=generator, dtype=torch.float64) * 300 - 100
    high = low + torch.rand(2, 5, 200, generator=generator, dtype=torch.float64) * 100

    first, size = windows.window(low, high, grid)

    for level, (shape, stride) in enumerate(zip(grid.shapes, grid.strides, strict=True)):
        for axis, number in enumerate(reversed(shape)):
            position = (torch.arange(number) + 0.5)[:, None] * stride
            begin, count = first[axis, level], size[axis, level]
            held = (torch.arange(number)[:, None] >= begin) & (torch.arange(number)[:, None] < begin + count)
            between = (position >= low[axis, level]) & (position <= high[axis, level])
            near = (position >= low[axis, level] - 0.02 * stride) & (position <= high[axis, level] + 0.02 * stride)
            assert (held | ~between).all() and (near | ~held).all()


def test_points_on_a_centre_count_and_points_in_the_wrong_order_give_an_empty_window():
    grid = AnchorGrid([(4, 4)], [8], make_cell_anchors([8]))
    low, high = torch.tensor([[[4.0, 12.0]], [[4.0, 4.0]]]).double(), torch.tensor([[[28.0, 4.0]], [[4.0, 4.0]]])

    first, size = windows.window(low, high.double(), grid)

    assert first[:, 0, 0].tolist() == [0, 0] and size[:, 0, 0].tolist() == [4, 1]
    assert size[:, 0, 1].prod() == 0


def test_windows_end_with_the_level_however_far_the_points():
    grid = AnchorGrid([(3, 5)], [8], make_cell_anchors([8]))
    low = torch.tensor([-1e30, 1e30, -torch.inf, torch.inf]).double().expand(2, 1, 4)
    high = torch.tensor([1e30, 2e30, -1e30, -torch.inf]).double().expand(2, 1, 4)

    first, size = windows.window(low, high, grid)

    assert first[:, 0, 0].tolist() == [0, 0] and size[:, 0, 0].tolist() == [5, 3]
    assert size[:, 0, 1:].eq(0).all()


def test_every_cell_of_every_window_comes_once_in_blocks_that_are_not_much_larger_than_asked_for(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    first, size = torch.randint(0, 50, (2, 3, 40), generator=generator), torch.randint(0, 5, (2, 3, 40))
    expected = {
        (number, column, row)
        for number, (x, y, width, height) in enumerate(torch.cat([first, size]).flatten(1).t().tolist())
        for column in range(x, x + width)
        for row in range(y, y + height)
    }

    for block in (1, 7, 100, 1 << 19):
        monkeypatch.setattr(windows, "BLOCK", block)
        found = []
        for numbers, which, column, row in windows.cells_in(first, size):
            assert len(which) < block + 16, "no window has more than 16 cells"
            found += zip(numbers[which].tolist(), column.tolist(), row.tolist(), strict=True)
        assert len(found) == len(expected) and set(found) == expected


def test_empty_windows_give_one_empty_block():
    empty = torch.zeros(2, 5, 3, dtype=torch.int64)

    (block,) = windows.cells_in(empty, empty)
    assert [len(part) for part in block] == [0, 0, 0, 0]
