import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from atss.anchors import AnchorGrid, make_cell_anchors
from atss.assigners import ATSSAssigner
from naive import naive_atss

FIVE_STRIDES = [8, 16, 32, 64, 128]


def grid_of(height, width, strides=FIVE_STRIDES, offset=0.5, **anchors):
    shapes = [(-(-height // s), -(-width // s)) for s in strides]
    return AnchorGrid(shapes, strides, make_cell_anchors(strides, **anchors), offset)


def random_objects(generator, number, height, width):
    center = torch.rand(number, 2, generator=generator) * torch.tensor([width, height])
    half = torch.exp(torch.rand(number, 2, generator=generator) * 4) * 2
    return torch.cat([center - half, center + half], dim=1)


def naive(grid, boxes, k):
    levels = [
        (level.tolist(), len(anchors))
        for level, anchors in zip(grid.boxes().split(grid.level_sizes), grid.cell_anchors, strict=True)
    ]
    return naive_atss(levels, boxes.tolist(), k)


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


@settings(max_examples=200, deadline=None)
@given(
    shapes=st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=4),
    k=st.integers(1, 25),
    offset=st.sampled_from([0.0, 0.5]),
    seed=st.integers(0, 2**31),
    number=st.integers(0, 8),
    spread=st.sampled_from([1.0, 3.0, 50.0]),
)
def test_grids_of_any_shape_and_centres_anywhere(shapes, k, offset, seed, number, spread):
    """One-row levels, levels smaller than k, objects far outside the picture."""
    strides = [8 * 2**level for level in range(len(shapes))]
    grid = AnchorGrid(shapes, strides, make_cell_anchors(strides), offset)
    boxes = random_objects(torch.Generator().manual_seed(seed), number, 72 * spread, 72 * spread) - 36 * (spread - 1)

    expected, tie = naive(grid, boxes, k)
    assume(not tie)

    assert ATSSAssigner(topk=k)(grid, [boxes])[0].tolist() == expected


def test_positives_are_a_fifth_of_the_candidates_whatever_the_scale():
    """Section 3.2: about 0.2 k L positives an object, from small to large."""
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


@pytest.mark.parametrize(
    "bad", [[5.0, 5, 5, 9], [9.0, 9, 5, 5], [float("nan"), 0, 9, 9], [0.0, 0, float("inf"), 9], [0.0, 0, 0, 0]]
)
def test_objects_without_area_or_finite_coordinates_match_nothing_and_disturb_nobody(bad):
    grid = grid_of(64, 96)
    good = torch.tensor([[10.0, 12, 40, 50]])
    alone = ATSSAssigner(9)(grid, [good])[0]

    beside = ATSSAssigner(9)(grid, [torch.cat([torch.tensor([bad]), good])])[0]

    assert torch.equal(beside, alone + (alone >= 0))


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


def test_k_must_be_positive():
    with pytest.raises(ValueError, match="topk"):
        ATSSAssigner(topk=0)
