import math

import pytest
import torch
from detectron2.config import LazyCall, instantiate
from hypothesis import given, settings
from hypothesis import strategies as st

from atss.modeling.anchors import AnchorGrid, make_cell_anchors
from atss.modeling.assigners import ScaleRangeAssigner
from tests.modeling.assigners.boxes import batches, grid_of, naive_matches
from tests.modeling.assigners.naive import naive_scale_range

# For four levels, adjoining, with gaps and overlapping.
RANGES = [
    [(0, 32), (32, 64), (64, 128), (128, math.inf)],
    [(0, 20), (10, 40), (50, 90), (0, math.inf)],
    [(8, math.inf)] * 4,
]


@pytest.mark.slow
@settings(max_examples=400)
@given(batch=batches(), ranges=st.sampled_from(RANGES))
def test_every_batch_is_assigned_as_fcos_does(batch, ranges):
    grid, gt_boxes = batch
    ranges = ranges[: len(grid.shapes)]
    expected = naive_matches(naive_scale_range, grid, gt_boxes, ranges)

    assert ScaleRangeAssigner(ranges)(grid, gt_boxes).tolist() == expected


def test_both_ends_of_a_range_belong_to_it():
    grid = AnchorGrid([(1, 1)], [8], make_cell_anchors([8]))
    box = [torch.tensor([[2.0, 2, 20, 14]])]  # the point (4, 4) is 16 pixels from the farthest side

    assert [ScaleRangeAssigner([r])(grid, box).item() for r in ((16, 20), (0, 16), (17, 20), (0, 15))] == [0, 0, -1, -1]


def test_the_smallest_object_wins():
    large, small = [0.0, 0, 60, 60], [10.0, 10, 50, 50]

    matches = ScaleRangeAssigner([(0, math.inf)])(grid_of(64, 64, [8]), [torch.tensor([large, small])]).view(8, 8)

    assert matches[4, 4] == 1 and matches[0, 0] == 0


def test_objects_far_beyond_any_image():
    boxes = torch.tensor([[-1e30, -1e30, 1e30, 1e30], [1e20, 1e20, 2e20, 2e20], [10, 10, 30, 30]])

    matches = ScaleRangeAssigner()(grid_of(64, 64), [boxes])

    assert matches.max() == 2 and (matches == 0).any() and not (matches == 1).any()


@pytest.mark.parametrize("ranges", [[(64, 0)], [(0, 64, 128)], [(-1, 64)], [(0, math.nan)], [5]])
def test_ranges_are_checked(ranges):
    with pytest.raises(ValueError, match="ranges: expected \\(low, high\\) in pixels"):
        ScaleRangeAssigner(ranges)


def test_there_is_a_range_for_every_level():
    with pytest.raises(ValueError, match="ranges: expected one for each of the 5 levels of grid, got 2"):
        ScaleRangeAssigner([(0, 64), (64, 128)])(grid_of(64, 64), [torch.empty(0, 4)])


def test_ranges_may_be_lists_of_any_kind():
    """Those of LazyConfigs are not Python's."""
    assigner = instantiate(LazyCall(ScaleRangeAssigner)(ranges=[[0, 32], [32, float("inf")]]))

    assert assigner.ranges == ((0, 32), (32, float("inf")))
