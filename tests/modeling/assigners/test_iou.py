import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from atss.modeling.anchors import AnchorGrid, make_cell_anchors
from atss.modeling.assigners import IoUAssigner
from tests.modeling.assigners.boxes import batches, grid_of, naive_matches
from tests.modeling.assigners.naive import naive_iou


@pytest.mark.slow
@settings(max_examples=400)
@given(
    batch=batches(), thresholds=st.sampled_from([(0.5, 0.4), (0.5, 0.4), (0.3, 0.3), (0.9, 0.1)]), center=st.booleans()
)
def test_every_batch_is_assigned_as_retinanet_does(batch, thresholds, center):
    grid, gt_boxes = batch
    expected = naive_matches(naive_iou, grid, gt_boxes, *thresholds, center)

    assert IoUAssigner(*thresholds, center)(grid, gt_boxes).tolist() == expected


def test_thresholds():
    """Along a row of anchors of 64 pixels IoU with an object of their size falls: 1, 0.78, 0.6, 0.45, 0.33."""
    grid = AnchorGrid([(1, 9)], [8], make_cell_anchors([8]))

    matches = IoUAssigner()(grid, [torch.tensor([[-28.0, -28, 36, 36]])])

    assert matches.tolist() == [[0, 0, 0, -2, -1, -1, -1, -1, -1]]


@pytest.mark.parametrize("positive, negative, match", [(0.25, 0.25, 0), (0.3, 0.25, -2), (0.3, 0.26, -1)])
def test_an_iou_that_reaches_a_threshold_exactly_counts(positive, negative, match):
    """Of two anchors of a cell one is the object, and the other four times as large."""
    grid = AnchorGrid([(1, 1)], [64], [torch.tensor([[-16.0, -16, 16, 16], [-32, -32, 32, 32]])])

    assert IoUAssigner(positive, negative)(grid, [torch.tensor([[16.0, 16, 48, 48]])]).tolist() == [[0, match]]


@pytest.mark.parametrize("center_in_box, kept, ignored", [(False, 7 * 7, 0), (True, 1, 7 * 7 - 1)])
def test_an_object_keeps_all_its_best_anchors_however_low_their_iou(center_in_box, kept, ignored):
    """A small object lies whole in many anchors: 7 x 7 of 64 pixels every 8 pixels, with an IoU of 0.02 each.

    Those whose centre is outside are ignored where that is asked for.
    """
    matches = IoUAssigner(center_in_box=center_in_box)(grid_of(128, 128, [8]), [torch.tensor([[61.0, 61, 69, 69]])])

    assert [(matches == label).sum() for label in (0, -2, -1)] == [kept, ignored, 16 * 16 - 7 * 7]


def test_a_kept_anchor_goes_to_the_object_that_it_overlaps_most():
    """As in RetinaNet, where a larger object below the threshold, too, overlaps the anchor more."""
    grid = AnchorGrid([(1, 1)], [64], make_cell_anchors([64], scale=1.0))
    tiny, larger = [30.0, 30, 34, 34], [-60.0, 0, 30, 64]

    assert IoUAssigner()(grid, [torch.tensor([tiny, larger])]).tolist() == [[1]]
    assert IoUAssigner()(grid, [torch.tensor([tiny])]).tolist() == [[0]]


@pytest.mark.parametrize("positive, negative", [(0.4, 0.5), (0.5, 0.0), (1.5, 0.4)])
def test_thresholds_are_checked(positive, negative):
    with pytest.raises(ValueError, match=f"negative, positive: expected .* got {negative}, {positive}"):
        IoUAssigner(positive, negative)
