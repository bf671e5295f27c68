import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atss.modeling.assigners import CenterSamplingAssigner
from tests.modeling.assigners.boxes import batches, grid_of, naive_matches
from tests.modeling.assigners.naive import naive_center_sampling

RANGES = [(0, 32), (20, 64), (64, 128), (0, math.inf)]


@pytest.mark.slow
@settings(max_examples=400)
@given(batch=batches(), k=st.sampled_from([1, 4, 9, 20]))
def test_every_batch_is_assigned_as_the_lite_version_does(batch, k):
    grid, gt_boxes = batch
    ranges = RANGES[: len(grid.shapes)]
    expected = naive_matches(naive_center_sampling, grid, gt_boxes, ranges, k, grid.num_per_cell)

    assert CenterSamplingAssigner(k, ranges)(grid, gt_boxes).tolist() == expected


def test_there_is_a_range_for_every_level():
    with pytest.raises(ValueError, match="ranges: expected one for each of the 5 levels of grid, got 1"):
        CenterSamplingAssigner(9, [(0, 64)])(grid_of(64, 64), [])
