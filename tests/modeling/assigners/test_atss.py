import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from atss.modeling.anchors import AnchorGrid, make_cell_anchors
from atss.modeling.assigners import ATSSAssigner
from tests.modeling.assigners.boxes import batches, grid_of, naive_matches, random_boxes
from tests.modeling.assigners.naive import naive_atss


@pytest.mark.parametrize("k", [1, 3, 9, 15])
@pytest.mark.parametrize("anchors", [{}, {"aspect_ratios": [0.5, 1.0, 2.0], "scales_per_octave": 3}])
@pytest.mark.parametrize("offset", [0.0, 0.5])
def test_matches_are_those_of_algorithm_1(k, anchors, offset):
    generator = torch.Generator().manual_seed(k)
    grid = grid_of(160, 224, offset=offset, **anchors)
    gt_boxes = [random_boxes(generator, n, 160, 224) for n in (7, 0, 25)]

    matches = ATSSAssigner(topk=k)(grid, gt_boxes)

    assert matches.shape == (3, len(grid)) and matches.dtype == torch.int64
    assert matches.tolist() == naive_matches(naive_atss, grid, gt_boxes, k, grid.num_per_cell)
    assert (matches[0] >= 0).any() and (matches[1] == -1).all()


@pytest.mark.slow
@given(batches(), st.integers(1, 25))
def test_every_grid_and_batch_is_assigned_as_in_algorithm_1(batch, k):
    grid, gt_boxes = batch
    expected = naive_matches(naive_atss, grid, gt_boxes, k, grid.num_per_cell)

    assert ATSSAssigner(topk=k)(grid, gt_boxes).tolist() == expected


def test_positives_are_a_fifth_of_the_candidates_whatever_the_scale():
    """Section 3.2: about 0.2 * k * L positives per ground truth box, from small to large."""
    generator = torch.Generator().manual_seed(0)
    grid = grid_of(800, 1344)
    for side in (32, 64, 128, 256, 512):
        center = torch.rand(200, 2, generator=generator) * torch.tensor([700.0, 300.0]) + 300
        boxes = [torch.cat([c - side / 2, c + side / 2])[None] for c in center]

        positives = (ATSSAssigner(9)(grid, boxes) >= 0).sum(1).float().mean()

        assert 0.1 * 9 * 5 < positives < 0.3 * 9 * 5, side


def test_an_anchor_matches_the_box_with_the_highest_iou():
    grid = grid_of(64, 64, [8])
    large, small = [0.0, 0, 64, 64], [20.0, 20, 44, 44]

    matches = ATSSAssigner(9)(grid, [torch.tensor([small, large])])[0]

    assert (matches[matches >= 0] == 1).all(), "the 64-pixel anchors overlap the 64-pixel box most"


def test_anchors_at_equal_distance_are_candidates_in_the_order_of_their_index():
    grid = grid_of(32, 32, [8])
    # The centre is a corner of four cells: with k = 2 the first two of them are candidates, and IoUs are equal.
    matches = ATSSAssigner(2)(grid, [torch.tensor([[0.0, 0, 32, 32]])])[0]

    assert matches.nonzero().flatten().tolist() != [] and (matches >= 0).nonzero().flatten().tolist() == [5, 6]


def test_a_single_candidate_is_positive():
    grid = AnchorGrid([(1, 1)], [32], make_cell_anchors([32]))

    assert ATSSAssigner(9)(grid, [torch.tensor([[10.0, 10, 20, 20]])]).tolist() == [[0]]


def test_candidates_that_all_have_the_same_iou_are_positive():
    """All nine anchors enclose a small box: the deviation is 0, and every IoU reaches the mean."""
    grid = grid_of(64, 64, [8])

    matches = ATSSAssigner(9)(grid, [torch.tensor([[16.3, 16.7, 39.1, 39.5]])])

    assert (matches == 0).sum() == 9


def test_an_anchor_never_matches_a_box_that_it_does_not_overlap():
    """Far outside the image every IoU is 0, and so are their mean and deviation."""
    grid = AnchorGrid([(4, 4)], [8], [torch.tensor([[-1.0, -1, 1, 1]])])

    matches = ATSSAssigner(9)(grid, [torch.tensor([[1000.0, 1000, 1010, 1010]])])

    assert (matches == -1).all()


def test_a_thousand_boxes_and_a_box_of_one_pixel():
    generator = torch.Generator().manual_seed(0)
    grid = grid_of(256, 256)

    many = ATSSAssigner(9)(grid, [random_boxes(generator, 1000, 256, 256)])
    tiny = ATSSAssigner(9)(grid, [torch.tensor([[19.5, 19.5, 20.5, 20.5]])])

    assert many.max() > 500
    assert (tiny >= 0).sum() == 1, "the one anchor whose centre it contains"


def test_anchors_are_ignored_by_their_centre_on_every_level():
    generator, grid = torch.Generator().manual_seed(0), grid_of(96, 128, aspect_ratios=[0.5, 1.0, 2.0])
    regions = [random_boxes(generator, count, 96, 128) for count in (3, 0, 1)]

    matches = ATSSAssigner(9)(grid, [torch.empty(0, 4)] * 3, regions)

    x, y = ((grid.boxes()[:, :2] + grid.boxes()[:, 2:]) / 2).unbind(1)
    for found, boxes in zip(matches, regions, strict=True):
        inside = [(x > x1) & (x < x2) & (y > y1) & (y < y2) for x1, y1, x2, y2 in boxes.tolist()]
        expected = torch.stack([*inside, torch.zeros(len(grid), dtype=torch.bool)]).any(0)
        assert torch.equal(found == -2, expected) and torch.equal(found == -1, ~expected)


def test_backends_are_checked(monkeypatch):
    import triton

    with pytest.raises(ValueError, match="backend: expected one of 'auto', 'torch', 'triton', got 'cuda'"):
        ATSSAssigner(backend="cuda")

    monkeypatch.setattr(triton.knobs.runtime, "interpret", False)
    with pytest.raises(ValueError, match="backend: 'triton' needs tensors on a CUDA GPU, got cpu"):
        ATSSAssigner(backend="triton")(grid_of(32, 32), [torch.empty(0, 4)])
