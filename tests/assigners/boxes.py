"""Grids and objects that the tests of the assigners share, and Algorithm 1 run on them."""

import torch

from atss.anchors import AnchorGrid, make_cell_anchors
from naive import naive_atss

FIVE_STRIDES = [8, 16, 32, 64, 128]


def grid_of(height, width, strides=FIVE_STRIDES, offset=0.5, **anchors):
    """The grid of a picture, with the anchors of `make_cell_anchors`."""
    shapes = [(-(-height // s), -(-width // s)) for s in strides]
    return AnchorGrid(shapes, strides, make_cell_anchors(strides, **anchors), offset)


def random_objects(generator, number, height, width):
    """(number, 4) boxes of 4 to 218 pixels, centred anywhere in the picture."""
    center = torch.rand(number, 2, generator=generator) * torch.tensor([width, height])
    half = torch.exp(torch.rand(number, 2, generator=generator) * 4) * 2
    return torch.cat([center - half, center + half], dim=1)


def naive(grid, boxes, k):
    """Matches of one picture as a list, and whether there was a tie."""
    levels = [
        (level.tolist(), len(anchors))
        for level, anchors in zip(grid.boxes().split(grid.level_sizes), grid.cell_anchors, strict=True)
    ]
    return naive_atss(levels, boxes.tolist(), k)
