import math

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from atss.modeling.assigners import CenterSamplingAssigner, ScaleRangeAssigner
from tests.modeling.assigners.boxes import batches, grid_of, levels_of, random_boxes
from tests.modeling.assigners.naive_rules import naive_center_sampling

RANGES = [(0, 32), (20, 64), (64, 128), (0, math.inf)]


@pytest.mark.slow
@settings(max_examples=400)
@given(batch=batches(), k=st.sampled_from([1, 4, 9, 20]))
def test_every_batch_is_assigned_as_the_lite_version_does(batch, k):
    grid, gt_boxes = batch
    ranges = RANGES[: len(grid.shapes)]
    expected = [
        naive_center_sampling(levels_of(grid), boxes.tolist(), k, grid.num_per_cell, ranges) for boxes in gt_boxes
    ]
    assume(not any(tie for _, tie in expected))

    assert CenterSamplingAssigner(k, ranges)(grid, gt_boxes).tolist() == [matches for matches, _ in expected]


def test_positives_are_some_of_those_without_sampling():
    generator, grid = torch.Generator().manual_seed(0), grid_of(256, 256)
    boxes = [random_boxes(generator, 1, 256, 256) for _ in range(50)]

    sampled, all_inside = CenterSamplingAssigner()(grid, boxes) >= 0, ScaleRangeAssigner()(grid, boxes) >= 0

    assert (sampled <= all_inside).all() and 0 < sampled.sum() < all_inside.sum()


def test_arguments_are_checked():
    with pytest.raises(ValueError, match="topk: expected a number from 1 to 64, got 0"):
        CenterSamplingAssigner(topk=0)
    with pytest.raises(ValueError, match="ranges: expected one for each of the 5 levels of grid, got 1"):
        CenterSamplingAssigner(9, [(0, 64)])(grid_of(64, 64), [])
