"""Boxes around polygons and masks, and malformed ones, which pycocotools may crash on."""

import json
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask

from atss.data.segmentation import box_of

SIZE = (10, 12)
SIDES = st.integers(1, 9)


@pytest.mark.parametrize(
    "polygons, box",
    [
        ([[1, 2, 5.5, 2, 5, 8]], [1, 2, 4.5, 6]),
        ([[1, 2, 5, 2, 5, 8], [0, 9, 1, 9, 1, 10]], [0, 2, 5, 8]),
        ([1, 2, 5, 2, 5, 8], [1, 2, 4, 6]),
        ([[1, 2], [5, 2], [5, 8]], [1, 2, 4, 6]),
        ([[[1, 2], [5, 2], [5, 8]]], [1, 2, 4, 6]),
    ],
)
def test_the_box_of_polygons_contains_all_points(polygons, box):
    assert box_of(polygons, SIZE) == box


@settings(max_examples=200)
@given(pixels=arrays(np.uint8, st.tuples(SIDES, SIDES), elements=st.integers(0, 1)))
def test_the_box_of_a_mask_is_that_of_its_pixels_in_both_encodings(pixels):
    flat = pixels.T.flatten()
    ends = np.flatnonzero(np.diff(flat, prepend=0, append=1 - flat[-1]))
    size, runs = list(pixels.shape), np.diff(ends, prepend=0).tolist()
    y, x = np.nonzero(pixels)
    box = [x.min(), y.min(), x.max() - x.min() + 1, y.max() - y.min() + 1] if len(x) else [0, 0, 0, 0]

    text = mask.encode(np.asfortranarray(pixels))["counts"].decode()

    assert box_of({"size": size, "counts": runs}, pixels.shape) == box
    assert box_of({"size": size, "counts": text}, pixels.shape) == box


@pytest.mark.parametrize(
    "segmentation",
    [
        None, 3, "text", [], [[]], [[1, 2, 3, 4]], [[1, 2, 3, 4, 5]], [[1, 2], [3]], [1, 2, 3, 4, 5, "6"], [[1, [2]]],
        [[1, 2, 3, 4, 5, float("nan")]], [[1, 2, 3, 4, 5, float("inf")]], [[1, 2, 3, 4, 5, 10**400]], [None] * 6,
        {}, {"size": [10, 12]}, {"size": [10, 12], "counts": None}, {"size": [12, 10], "counts": [120]},
        {"size": "10 12", "counts": [120]}, {"size": [10, 12], "counts": [119]},
        {"size": [10, 12], "counts": [130, -10]},
        {"size": [10, 12], "counts": [True] * 120}, {"size": [10, 12], "counts": [120.0]},
        {"size": [10, 12], "counts": [10**400]}, {"size": [10, 12], "counts": [[120]]},
        {"size": [10, 12], "counts": {}},
        {"size": [10, 12], "counts": ""}, {"size": [10, 12], "counts": "P"}, {"size": [10, 12], "counts": "o" * 1000},
        {"size": [10, 12], "counts": "\xff\xff"}, {"size": [10, 12], "counts": "\ud800"},
        {"size": [10, 12], "counts": "0" * 19}, {"size": [10, 12], "counts": "h3O"},
    ],
)  # fmt: skip
def test_malformed_segmentations_are_refused(segmentation):
    with pytest.raises(ValueError, match=r"^(be|have) "):
        box_of(segmentation, SIZE)


def test_neither_size_nor_depth_costs_memory_or_recursion():
    """A mask of 10^12 pixels, and lists in lists."""
    side, deep = 1_000_000, json.loads("[" * 900 + "1, 2, 3, 4, 5, 6" + "]" * 900)
    tracemalloc.start()
    try:
        assert box_of({"size": [side, side], "counts": [side, side**2 - side]}, (side, side)) == [1, 0, side - 1, side]
        assert box_of(deep, SIZE) == [1, 2, 4, 4]
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
