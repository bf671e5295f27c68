import logging
import math

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from atss.modeling.anchors import AnchorGrid, make_cell_anchors
from atss.modeling.assigners import ATSSAssigner, atss
from tests.modeling.assigners.boxes import grid_of, naive, random_objects

NAN, INF = math.nan, math.inf
INVALID = [[5.0, 5, 5, 9], [9.0, 9, 5, 5], [NAN, 0, 9, 9], [0.0, 0, INF, 9], [-INF, 0, 9, 9], [0.0, 0, 0, 0]]


@pytest.mark.parametrize("k", [1, 3, 9, 15])
@pytest.mark.parametrize("anchors", [{}, {"aspect_ratios": [0.5, 1.0, 2.0], "scales_per_octave": 3}])
@pytest.mark.parametrize("offset", [0.0, 0.5])
def test_matches_are_those_of_algorithm_1(k, anchors, offset):
    generator = torch.Generator().manual_seed(k)
    grid = grid_of(160, 224, offset=offset, **anchors)
    gt_boxes = [random_objects(generator, n, 160, 224) for n in (7, 0, 25)]

    matches = ATSSAssigner(topk=k)(grid, gt_boxes)

    assert matches.shape == (3, len(grid)) and matches.dtype == torch.int64
    for i, boxes in enumerate(gt_boxes):
        expected, tie = naive(grid, boxes, k)
        assert not tie and matches[i].tolist() == expected
    assert (matches[0] >= 0).any() and (matches[1] == -1).all()


@pytest.mark.slow
@given(
    shapes=st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=4),
    first_stride=st.sampled_from([1, 4, 8, 12]),
    k=st.integers(1, 25),
    ratios=st.sampled_from([(1.0,), (1.0,), (0.5, 2.0), (0.5, 1.0, 2.0)]),
    offset=st.sampled_from([0.0, 0.5]),
    counts=st.lists(st.integers(0, 6), min_size=0, max_size=3),
    spread=st.sampled_from([1.0, 1.0, 3.0, 50.0]),
    invalid=st.lists(st.tuples(st.integers(0, 2), st.sampled_from(INVALID)), max_size=2),
    seed=st.integers(0, 2**31),
)
def test_every_grid_batch_and_box_is_assigned_as_algorithm_1_says(
    shapes, first_stride, k, ratios, offset, counts, spread, invalid, seed
):
    """One-row levels, levels smaller than k, several anchors, any number of images, objects far outside, no area."""
    strides, generator = [first_stride * 2**level for level in range(len(shapes))], torch.Generator().manual_seed(seed)
    grid = AnchorGrid(shapes, strides, make_cell_anchors(strides, aspect_ratios=ratios), offset)
    extent = 9 * first_stride * spread
    gt_boxes = [random_objects(generator, count, extent, extent) - extent / 2 for count in counts]
    gt_boxes = [boxes + 4.5 * first_stride for boxes in gt_boxes]
    for image, box in invalid:
        if image < len(gt_boxes):
            gt_boxes[image] = torch.cat([gt_boxes[image], torch.tensor([box])])

    expected = [naive(grid, boxes, k) for boxes in gt_boxes]
    assume(not any(tie for _, tie in expected))

    assert ATSSAssigner(topk=k)(grid, gt_boxes).tolist() == [matches for matches, _ in expected]


def test_positives_are_a_fifth_of_the_candidates_whatever_the_scale():
    """Section 3.2: about 0.2 k L positives per object, from small to large."""
    generator = torch.Generator().manual_seed(0)
    grid = grid_of(800, 1344)
    for side in (32, 64, 128, 256, 512):
        center = torch.rand(200, 2, generator=generator) * torch.tensor([700.0, 300.0]) + 300
        boxes = [torch.cat([c - side / 2, c + side / 2])[None] for c in center]

        positives = (ATSSAssigner(9)(grid, boxes) >= 0).sum(1).float().mean()

        assert 0.1 * 9 * 5 < positives < 0.3 * 9 * 5, side


def test_an_anchor_goes_to_the_object_with_the_highest_iou():
    grid = grid_of(64, 64, [8])
    large, small = [0.0, 0, 64, 64], [20.0, 20, 44, 44]

    matches = ATSSAssigner(9)(grid, [torch.tensor([small, large])])[0]

    assert (matches[matches >= 0] == 1).all(), "the 64-pixel anchors overlap the 64-pixel object best"


def test_of_equal_objects_the_first_wins():
    grid = grid_of(64, 64)
    box = torch.tensor([[10.0, 12, 40, 50]])

    matches = ATSSAssigner(9)(grid, [box.repeat(3, 1)])

    assert matches.max() == 0
    assert torch.equal(matches, ATSSAssigner(9)(grid, [box]))


def test_of_equally_distant_anchors_those_with_the_lower_index_are_candidates():
    grid = grid_of(32, 32, [8])
    # The centre is a corner of four cells: with k = 2 the first two of them are candidates, and IoUs are equal.
    matches = ATSSAssigner(2)(grid, [torch.tensor([[0.0, 0, 32, 32]])])[0]

    assert matches.nonzero().flatten().tolist() != [] and (matches >= 0).nonzero().flatten().tolist() == [5, 6]


def test_a_single_candidate_is_positive():
    grid = AnchorGrid([(1, 1)], [32], make_cell_anchors([32]))

    assert ATSSAssigner(9)(grid, [torch.tensor([[10.0, 10, 20, 20]])]).tolist() == [[0]]


def test_candidates_that_all_have_the_same_iou_are_positive():
    """A small object lies whole in all nine anchors: no deviation, and every one inside it reaches the mean."""
    grid = grid_of(64, 64, [8])

    matches = ATSSAssigner(9)(grid, [torch.tensor([[16.3, 16.7, 39.1, 39.5]])])

    assert (matches == 0).sum() == 9


def test_an_anchor_that_does_not_overlap_an_object_never_matches_it():
    """Far outside the image every IoU is 0, and so are their mean and deviation."""
    cell_anchors = [torch.tensor([[-1.0, -1, 1, 1]])]
    grid = AnchorGrid([(4, 4)], [8], cell_anchors)

    matches = ATSSAssigner(9)(grid, [torch.tensor([[1000.0, 1000, 1010, 1010]])])

    assert (matches == -1).all()


@pytest.mark.parametrize("bad", INVALID)
def test_objects_without_area_or_finite_coordinates_match_nothing_and_disturb_nobody(bad):
    grid = grid_of(64, 96)
    good = torch.tensor([[10.0, 12, 40, 50]])
    alone = ATSSAssigner(9)(grid, [good])[0]

    beside = ATSSAssigner(9)(grid, [torch.cat([torch.tensor([bad]), good])])[0]

    assert torch.equal(beside, alone + (alone >= 0))


@pytest.mark.parametrize("backend", ["torch", "triton"])
def test_objects_that_cannot_match_are_counted_in_one_warning(caplog, backend):
    grid, assigner = grid_of(32, 32), ATSSAssigner(9, backend)
    good, bad = torch.tensor([[2.0, 3, 20, 30]]), torch.tensor([[5.0, 5, 5, 9], [NAN, 0, 9, 9]])

    with caplog.at_level(logging.WARNING, logger="atss.modeling.assigners"):
        assigner(grid, [good])
        assert not caplog.records
        for _ in range(3):
            assigner(grid, [torch.cat([bad[:1], good]), bad[1:]])

    assert [record.message for record in caplog.records] == [
        "2 object(s) without area or with coordinates that are not finite match nothing. This is said once."
    ]


@pytest.mark.parametrize("gt_boxes", [[], [torch.empty(0, 4)], [torch.empty(0, 4), torch.empty(0, 4)]])
def test_no_objects_and_no_images(gt_boxes):
    grid = grid_of(32, 32)

    assert ATSSAssigner(9)(grid, gt_boxes).tolist() == [[-1] * len(grid)] * len(gt_boxes)


def test_large_batches_are_worked_off_in_blocks_with_the_same_matches(monkeypatch):
    """Conflicts between objects of different blocks among them."""
    generator, grid = torch.Generator().manual_seed(3), grid_of(96, 128, aspect_ratios=[0.5, 1.0])
    gt_boxes = [random_objects(generator, count, 96, 128) for count in (40, 0, 3, 60)]
    whole = ATSSAssigner(9)(grid, gt_boxes)

    monkeypatch.setattr(atss, "BLOCK", 7 * 23 * 5 * 2)

    assert torch.equal(ATSSAssigner(9)(grid, gt_boxes), whole)


def test_a_thousand_objects_and_an_object_of_one_pixel():
    generator = torch.Generator().manual_seed(0)
    grid = grid_of(256, 256)

    many = ATSSAssigner(9)(grid, [random_objects(generator, 1000, 256, 256)])
    tiny = ATSSAssigner(9)(grid, [torch.tensor([[19.5, 19.5, 20.5, 20.5]])])

    assert many.max() > 500
    assert (tiny >= 0).sum() == 1, "the one anchor whose centre it contains"


def test_ignored_regions_take_background_only():
    grid = grid_of(64, 64, [8])
    objects = torch.tensor([[0.0, 0, 30, 30]])
    plain = ATSSAssigner(9)(grid, [objects, objects[:0]])

    matches = ATSSAssigner(9)(grid, [objects, objects[:0]], [torch.tensor([[0.0, 0, 64, 32]]), objects[:0]])

    upper = torch.arange(64) < 32
    assert torch.equal(matches[0] == -2, upper & (plain[0] == -1))
    assert torch.equal(matches[0] >= 0, plain[0] >= 0)
    assert torch.equal(matches[1], plain[1])


def test_anchors_are_ignored_by_their_centre_on_every_level():
    generator, grid = torch.Generator().manual_seed(0), grid_of(96, 128, aspect_ratios=[0.5, 1.0, 2.0])
    regions = [random_objects(generator, count, 96, 128) for count in (3, 0, 1)]

    matches = ATSSAssigner(9)(grid, [torch.empty(0, 4)] * 3, regions)

    x, y = ((grid.boxes()[:, :2] + grid.boxes()[:, 2:]) / 2).unbind(1)
    for found, boxes in zip(matches, regions, strict=True):
        inside = [(x > x1) & (x < x2) & (y > y1) & (y < y2) for x1, y1, x2, y2 in boxes.tolist()]
        expected = torch.stack([*inside, torch.zeros(len(grid), dtype=torch.bool)]).any(0)
        assert torch.equal(found == -2, expected) and torch.equal(found == -1, ~expected)


@pytest.mark.parametrize("topk", [0, -1, 65])
def test_k_has_bounds(topk):
    with pytest.raises(ValueError, match=f"topk: expected a number from 1 to 64, got {topk}"):
        ATSSAssigner(topk=topk)


def test_backends_are_checked(monkeypatch):
    import triton

    with pytest.raises(ValueError, match="backend: expected one of 'auto', 'torch', 'triton', got 'cuda'"):
        ATSSAssigner(backend="cuda")

    monkeypatch.setattr(triton.knobs.runtime, "interpret", False)
    with pytest.raises(ValueError, match="backend: 'triton' needs tensors on a CUDA GPU, got cpu"):
        ATSSAssigner(backend="triton")(grid_of(32, 32), [torch.empty(0, 4)])


GRID = grid_of(32, 32)
BOX = torch.tensor([[2.0, 3, 20, 30]])


@pytest.mark.parametrize(
    "grid, gt_boxes, ignore_boxes, error, message",
    [
        (GRID.boxes(), [BOX], None, TypeError, "grid: expected an AnchorGrid, got Tensor"),
        (GRID, BOX, None, TypeError, "gt_boxes: expected a list of tensors, one an image, got Tensor"),
        (GRID, [BOX, BOX.numpy()], None, TypeError, "gt_boxes[1]: expected a tensor (number of boxes, 4), got ndarray"),
        (GRID, [BOX[0]], None, ValueError, "gt_boxes[0]: expected shape (number of boxes, 4), got (4,)"),
        (GRID, [BOX[:, :3]], None, ValueError, "gt_boxes[0]: expected shape (number of boxes, 4), got (1, 3)"),
        (GRID, [BOX.long()], None, TypeError, "gt_boxes[0]: expected float32, got torch.int64"),
        (GRID, [BOX.to("meta")], None, ValueError, "gt_boxes[0]: expected device cpu, that of the grid, got meta"),
        (GRID, [BOX], [BOX.int()], TypeError, "ignore_boxes[0]: expected float32, got torch.int32"),
        (
            GRID,
            [BOX],
            [],
            ValueError,
            "ignore_boxes: expected one tensor for each of the 1 images of gt_boxes, got 0",
        ),
    ],
)
def test_arguments_that_do_not_fit_are_named(grid, gt_boxes, ignore_boxes, error, message):
    with pytest.raises(error) as raised:
        ATSSAssigner()(grid, gt_boxes, ignore_boxes)

    assert str(raised.value) == message
