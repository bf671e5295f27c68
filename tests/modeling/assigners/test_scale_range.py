import math

import pytest
import torch
from detectron2.config import LazyCall, instantiate
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from atss.modeling.anchors import AnchorGrid, make_cell_anchors
from atss.modeling.assigners import ScaleRangeAssigner
from tests.modeling.assigners.boxes import batches, grid_of, levels_of
from tests.modeling.assigners.naive_rules import naive_scale_range

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
    expected = [naive_scale_range(levels_of(grid), boxes.tolist(), ranges) for boxes in gt_boxes]
    assume(not any(tie for _, tie in expected))

    assert ScaleRangeAssigner(ranges)(grid, gt_boxes).tolist() == [matches for matches, _ in expected]


def test_both_ends_of_a_range_belong_to_it():
    grid = AnchorGrid([(1, 1)], [8], make_cell_anchors([8]))
    box = [torch.tensor([[2.0, 2, 20, 14]])]  # the point (4, 4) is 16 pixels from the farthest side

    assert [ScaleRangeAssigner([r])(grid, box).item() for r in ((16, 20), (0, 16), (17, 20), (0, 15))] == [0, 0, -1, -1]


def test_the_smallest_object_wins_and_of_equals_the_first():
    grid = grid_of(64, 64, [8])
    large, small = [0.0, 0, 60, 60], [10.0, 10, 50, 50]
    assigner = ScaleRangeAssigner([(0, math.inf)])

    matches = assigner(grid, [torch.tensor([large, small]), torch.tensor([small, small])])

    assert matches[0].view(8, 8)[4, 4] == 1 and matches[0].view(8, 8)[0, 0] == 0
    assert set(matches[1].tolist()) == {-1, 0}


def test_anchors_of_a_cell_share_its_match():
    grid = grid_of(64, 64, [8], aspect_ratios=[0.5, 1.0, 2.0])
    boxes = [torch.tensor([[10.0, 10, 50, 50]])]

    matches = ScaleRangeAssigner([(0, 64)])(grid, boxes).view(-1, 3)

    assert (matches == matches[:, :1]).all() and (matches == 0).any()


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
