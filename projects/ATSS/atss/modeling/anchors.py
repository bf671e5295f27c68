"""Anchors: boxes of fixed shapes at every cell of every feature map (section 3.1)."""

import math
from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor


def make_cell_anchors(
    strides: Sequence[int],
    scale: float = 8.0,
    aspect_ratios: Sequence[float] = (1.0,),
    scales_per_octave: int = 1,
) -> list[Tensor]:
    """The anchors of one cell on every level, centred on the cell (sections 3.1 and 4.3).

    Args:
        strides: stride per level, in pixels.
        scale: side of the square anchor, in strides.
        aspect_ratios: height / width of the anchors, at the area of the square anchor.
        scales_per_octave: number of sizes per level: `scale * 2 ** (i / scales_per_octave)`.

    Returns:
        one (A, 4) float32 tensor per level, x1 y1 x2 y2 in pixels relative to the cell's centre; ratios vary fastest,
        as in Detectron2's anchor generator.
    """
    cell_anchors = []
    for stride in strides:
        anchors = []
        for octave in range(scales_per_octave):
            side = stride * scale * 2 ** (octave / scales_per_octave)
            for ratio in aspect_ratios:
                width = side / math.sqrt(ratio)
                height = width * ratio
                anchors.append([-width / 2, -height / 2, width / 2, height / 2])
        cell_anchors.append(torch.tensor(anchors, dtype=torch.float32))
    return cell_anchors


class Levels(NamedTuple):
    """The L levels of a grid as tensors.

    sizes: (2, L) int64, number of columns and rows.
    strides: (L,) float32, in pixels.
    num_cells: (L,) int64.
    first: (L,) int64, index of the level's first cell.
    cell_anchors: (A, 2, 2, L) float32: anchor, corner (x1 y1, x2 y2), axis; in pixels from the cell's centre.
    """

    sizes: Tensor
    strides: Tensor
    num_cells: Tensor
    first: Tensor
    cell_anchors: Tensor


class AnchorGrid:
    """The R anchors of a batch of images: a regular grid of cells per level, the same anchors at every cell.

    Anchors are ordered by level, row, column, and anchor within the cell, as in Detectron2's anchor generator.

    Args:
        shapes: (H, W) of the feature map per level, in cells.
        strides: stride per level, in pixels.
        cell_anchors: one (A, 4) float tensor per level, x1 y1 x2 y2 in pixels relative to the cell's centre.
        offset: position of a cell's centre, in strides from the cell's corner.

    Attributes:
        level_sizes: number of anchors H * W * A per level; the sum is R.
        num_per_cell: A.
        device: device of the anchors.

    Raises:
        ValueError: the lists differ in length, a level has no cell, or anchors are not (A, 4) with the same A.
    """

    def __init__(
        self,
        shapes: Sequence[tuple[int, int]],
        strides: Sequence[int],
        cell_anchors: Sequence[Tensor],
        offset: float = 0.5,
    ):
        if not len(shapes) == len(strides) == len(cell_anchors) or not shapes:
            raise ValueError(
                "shapes, strides and cell_anchors must give the same number of levels, at least one; "
                f"got {len(shapes)}, {len(strides)} and {len(cell_anchors)}"
            )
        for height, width in shapes:
            if height < 1 or width < 1:
                raise ValueError(f"shapes: every level needs at least one cell, got {height} x {width}")
        for anchors in cell_anchors:
            if anchors.ndim != 2 or anchors.shape[0] == 0 or anchors.shape[1] != 4:
                raise ValueError(f"cell_anchors must be (A, 4) tensors, got {tuple(anchors.shape)}")
        if len({len(anchors) for anchors in cell_anchors}) > 1:
            numbers = ", ".join(str(len(anchors)) for anchors in cell_anchors)
            raise ValueError(f"cell_anchors: every level needs the same number of anchors per cell, got {numbers}")
        self.shapes = [(height, width) for height, width in shapes]
        self.strides = list(strides)
        self.cell_anchors = list(cell_anchors)
        self.offset = offset
        self.num_per_cell = len(self.cell_anchors[0])
        self.level_sizes = [h * w * len(a) for (h, w), a in zip(self.shapes, self.cell_anchors, strict=True)]
        self._boxes = self._levels = None

    def __len__(self) -> int:
        return sum(self.level_sizes)

    def levels(self) -> Levels:
        """The levels as tensors."""
        if self._levels is None:
            (rows, columns), device = zip(*self.shapes, strict=True), self.device
            num_cells = [height * width for height, width in self.shapes]
            self._levels = Levels(
                torch.tensor([columns, rows]).to(device, non_blocking=True),
                torch.tensor(self.strides, dtype=torch.float32).to(device, non_blocking=True),
                torch.tensor(num_cells).to(device, non_blocking=True),
                torch.tensor([0, *accumulate(num_cells[:-1])]).to(device, non_blocking=True),
                torch.stack(self.cell_anchors, dim=1).float().unflatten(2, (2, 2)).permute(0, 2, 3, 1),
            )
        return self._levels

    def num_candidates(self, k: int) -> int:
        """Number of anchors in the k cells nearest to a point, over all levels."""
        return sum(min(k, height * width) for height, width in self.shapes) * self.num_per_cell

    def centers(self, level: int) -> tuple[Tensor, Tensor]:
        """Centres of a level's cells: y of the rows (H,) and x of the columns (W,), in pixels."""
        rows, columns = (torch.arange(n, device=self.device, dtype=torch.float32) for n in self.shapes[level])
        return (rows + self.offset) * self.strides[level], (columns + self.offset) * self.strides[level]

    def boxes_at(self, places: Tensor) -> Tensor:
        """The anchors (N, L, K, 4) at places (N, L, K) of each level, counted by anchor of a cell, row and column."""
        levels = self.levels()
        columns, cells = levels.sizes[0, :, None], levels.num_cells[:, None]
        anchor, cell = places // cells, places % cells
        centers = torch.stack([cell % columns, cell // columns], -1)
        centers = (centers + self.offset) * levels.strides[:, None, None]
        cell_anchors = levels.cell_anchors.permute(3, 0, 1, 2).flatten(2)  # (L, A, 4)
        level = torch.arange(len(self.shapes), device=places.device)[:, None]
        return centers.repeat(1, 1, 1, 2) + cell_anchors[level, anchor]

    @property
    def device(self) -> torch.device:
        return self.cell_anchors[0].device

    def boxes(self) -> Tensor:
        """All anchors: (R, 4), x1 y1 x2 y2 in pixels of the padded image."""
        if self._boxes is None:
            boxes = []
            for level, anchors in enumerate(self.cell_anchors):
                y, x = torch.meshgrid(*self.centers(level), indexing="ij")
                boxes.append((torch.stack([x, y, x, y], dim=-1)[:, :, None] + anchors).reshape(-1, 4))
            self._boxes = torch.cat(boxes)
        return self._boxes
