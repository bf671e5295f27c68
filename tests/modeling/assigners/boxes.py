"""Grids and ground truth boxes for the tests of the assigners, and their comparison with the naive rules."""

import math

import torch
from hypothesis import reject
from hypothesis import strategies as st

from atss.modeling.anchors import AnchorGrid, make_cell_anchors

FIVE_STRIDES = [8, 16, 32, 64, 128]


def grid_of(height, width, strides=FIVE_STRIDES, offset=0.5, **anchors):
    """The grid of an image, with the anchors of `make_cell_anchors`."""
    shapes = [(-(-height // s), -(-width // s)) for s in strides]
    return AnchorGrid(shapes, strides, make_cell_anchors(strides, **anchors), offset)


def random_boxes(generator, number, height, width, scale=1.0):
    """(number, 4) boxes of 4 to 218 pixels, times `scale`, centred anywhere in the image."""
    center = torch.rand(number, 2, generator=generator) * torch.tensor([width, height])
    half = torch.exp(torch.rand(number, 2, generator=generator) * 4) * 2 * scale
    return torch.cat([center - half, center + half], dim=1)


def naive_matches(rule, grid, gt_boxes, *parameters):
    """Matches of every image, as lists, by one of the rules of `naive`; examples with ties are rejected."""
    levels = [level.tolist() for level in grid.boxes().split(grid.level_sizes)]
    results = [rule(levels, boxes.tolist(), *parameters) for boxes in gt_boxes]
    if any(tie for _, tie in results):
        reject()
    return [matches for matches, _ in results]


# Boxes that match nothing.
NAN, INF = math.nan, math.inf
INVALID = [[5.0, 5, 5, 9], [9.0, 9, 5, 5], [NAN, 0, 9, 9], [0.0, 0, INF, 9], [-INF, 0, 9, 9], [0.0, 0, 0, 0]]


@st.composite
def batches(draw):
    """A grid, and the ground truth boxes of some images.

    Grids have levels of a single row among others, and one to nine anchors per cell. Boxes measure from a fraction of
    the smallest cell to more than the image, some lie far outside it, some have no area.
    """
    shapes = draw(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=4))
    strides = [draw(st.sampled_from([1, 4, 8, 12])) * 2**level for level in range(len(shapes))]
    ratios = draw(st.sampled_from([(1.0,), (1.0,), (2.0,), (0.5, 1.0, 3.0)]))
    anchors = make_cell_anchors(strides, draw(st.sampled_from([4.0, 8.0])), ratios, draw(st.sampled_from([1, 1, 3])))
    grid = AnchorGrid(shapes, strides, anchors, draw(st.sampled_from([0.0, 0.5])))

    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    extent, gt_boxes = 9 * strides[0] * draw(st.sampled_from([1.0, 1.0, 3.0, 50.0])), []
    for count in draw(st.lists(st.integers(0, 6), max_size=3)):
        scale = draw(st.sampled_from([1.0, 1.0, 0.1, 10.0]))
        boxes = random_boxes(generator, count, extent, extent, scale) - extent / 2 + 4.5 * strides[0]
        invalid = torch.tensor(draw(st.lists(st.sampled_from(INVALID), max_size=1))).view(-1, 4)
        gt_boxes.append(torch.cat([boxes, invalid]))
    return grid, gt_boxes
