import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from atss.modeling.anchors import AnchorGrid, make_cell_anchors
from atss.modeling.assigners import TopKIoUAssigner
from tests.modeling.assigners.boxes import batches, grid_of, naive_matches
from tests.modeling.assigners.naive import naive_topk_iou


@pytest.mark.slow
@settings(max_examples=400)
@given(batch=batches(), k=st.sampled_from([1, 4, 9, 20]))
def test_every_batch_is_assigned_by_the_k_best_scores(batch, k):
    grid, gt_boxes = batch
    expected = naive_matches(naive_topk_iou, grid, gt_boxes, k)

    assert TopKIoUAssigner(k)(grid, gt_boxes).tolist() == expected


def test_of_equal_ious_the_nearest_count():
    """Dozens of anchors hold the object whole; the nine cells around its centre are in it and positive."""
    grid = grid_of(128, 128, [8])

    matches = TopKIoUAssigner(9)(grid, [torch.tensor([[46.5, 46.5, 73.5, 73.5]])]).view(16, 16)

    assert (matches == 0).nonzero().tolist() == [[row, column] for row in (6, 7, 8) for column in (6, 7, 8)]


def test_an_object_centred_on_the_only_anchor_matches_it():
    """The largest distance of an image, by which distances are divided, may be 0."""
    grid = AnchorGrid([(1, 1)], [32], make_cell_anchors([32]))

    assert TopKIoUAssigner(9)(grid, [torch.tensor([[10.0, 10, 22, 22]])]).tolist() == [[0]]
