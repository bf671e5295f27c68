"""Cells of a level in a window of columns and rows."""

import torch

# Margin of a window on each side, in cells, so that rounding loses no cell.
SLACK = 0.01
# Cells in memory at a time; more windows are processed in blocks.
BLOCK = 1 << 19


def window(low, high, grid):
    """The cells of every level whose centres lie between two points on both axes, at most one more on each side.

    `low` and `high` (2, ..., L, M) float64 are x and y in pixels; the window is empty where low is above high. Returns
    first column and row, and number of columns and rows, (2, ..., L, M) int64 each.
    """
    levels = grid.levels()
    sizes = levels.sizes.view(2, *[1] * (low.ndim - 3), -1, 1)
    strides = levels.strides.double()[:, None]
    first, last = low / strides - (grid.offset + SLACK), high / strides - (grid.offset - SLACK)
    # Clamped before the conversion to integers: boxes may lie anywhere.
    first = first.ceil().clamp_(min=0).minimum(sizes)
    last = last.floor().clamp_(min=-1).minimum(sizes - 1)
    return first.long(), (last - first + 1).clamp_(min=0).where(low <= high, 0).long()


def cells_in(first, size):
    """Enumerate the cells of the W windows that `window` gives, block by block; at least one block.

    Yields (V,) int64 in [0, W), the windows of this block; (Q,) int64 in [0, V), the window of each cell; and the
    column and row of each cell, (Q,) int64 each.
    """
    first, size = first.flatten(1), size.flatten(1)
    counts = size.prod(0)
    windows = counts.nonzero().squeeze(1)
    if not len(windows):
        yield windows, windows, windows, windows
        return
    ends = counts[windows].cumsum(0)
    for block in windows.split(((ends - 1) // BLOCK).unique_consecutive(return_counts=True)[1].tolist()):
        ends = counts[block].cumsum(0)
        which = torch.repeat_interleave(counts[block], output_size=int(ends[-1]))
        before, width, column, row = torch.stack([ends - counts[block], size[0, block], *first[:, block]])[:, which]
        within = torch.arange(len(which), device=which.device) - before
        down = within // width
        yield block, which, column + (within - down * width), row + down
