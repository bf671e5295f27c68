"""What all rules have in common."""

import functools
import logging

import pytest
import torch

from assigner import extra_memory
from atss.modeling import assigners
from atss.modeling.assigners import ATSSAssigner, CenterSamplingAssigner, TopKIoUAssigner
from tests.modeling.assigners.boxes import INVALID, grid_of, random_boxes

# Every rule, with the module whose BLOCK bounds its memory.
MODULES = {
    ATSSAssigner: assigners.atss,
    assigners.IoUAssigner: assigners.windows,
    assigners.ScaleRangeAssigner: assigners.windows,
    CenterSamplingAssigner: assigners.center_sampling,
    TopKIoUAssigner: assigners.topk_iou,
}
every_rule = pytest.mark.parametrize("rule", MODULES)
GRID = grid_of(32, 32)
BOX = torch.tensor([[2.0, 3, 20, 30]])


@every_rule
@pytest.mark.parametrize("gt_boxes", [[], [torch.empty(0, 4)], [torch.empty(0, 4), torch.empty(0, 4)]])
def test_no_boxes_and_no_images(rule, gt_boxes):
    matches = rule()(GRID, gt_boxes)

    assert matches.shape == (len(gt_boxes), len(GRID)) and matches.dtype == torch.int64
    assert (matches == -1).all()


@every_rule
@pytest.mark.parametrize("bad", INVALID)
def test_boxes_without_area_or_finite_coordinates_match_nothing_and_change_no_other_match(rule, bad):
    grid = grid_of(64, 96, aspect_ratios=[0.5, 1.0])
    good, bad = torch.tensor([[10.0, 12, 40, 50], [30.0, 30, 32, 31]]), torch.tensor([bad])
    alone = rule()(grid, [good])[0]

    beside = rule()(grid, [torch.cat([bad, good]), bad])

    assert torch.equal(beside[0], alone + (alone >= 0)) and (alone >= 0).any()
    assert (beside[1] == -1).all()


@pytest.mark.parametrize("rule", [*MODULES, functools.partial(ATSSAssigner, backend="triton")])
def test_one_warning_counts_the_boxes_that_cannot_match(caplog, rule):
    assigner, bad = rule(), torch.tensor([[5.0, 5, 5, 9], [torch.nan, 0, 9, 9]])

    with caplog.at_level(logging.WARNING, logger="atss.modeling.assigners"):
        assigner(GRID, [BOX])
        assert not caplog.records
        for _ in range(3):
            assigner(GRID, [torch.cat([bad[:1], BOX]), bad[1:]])

    assert [record.message for record in caplog.records] == [
        "2 ground truth box(es) without area or with coordinates that are not finite match nothing. "
        "This warning appears once."
    ]


@every_rule
def test_of_identical_boxes_the_first_is_matched(rule):
    grid, box = grid_of(64, 64), torch.tensor([[10.0, 12, 40, 50]])

    matches = rule()(grid, [box.repeat(3, 1)])

    assert torch.equal(matches, rule()(grid, [box])) and matches.max() == 0


@every_rule
def test_only_background_is_ignored_in_regions_without_loss(rule):
    grid = grid_of(64, 64)
    boxes, none = torch.tensor([[3.0, 4, 30, 50]]), torch.empty(0, 4)
    plain = rule()(grid, [boxes, none, none])

    matches = rule()(grid, [boxes, none, none], [torch.tensor([[0.0, 0, 64, 32]]), none, none])

    x, y = ((grid.boxes()[:, :2] + grid.boxes()[:, 2:]) / 2).unbind(1)
    upper = (y < 32) & (x < 64)
    assert torch.equal(matches[0], plain[0].where(~upper | (plain[0] != -1), -2))
    assert torch.equal(matches[1:], plain[1:])
    assert (plain[0] >= 0).any() and (matches[0] == -2).any()


@every_rule
def test_matches_do_not_depend_on_the_size_of_the_blocks(monkeypatch, rule):
    """With conflicts between boxes of different blocks, and tiny boxes that keep anchors of large ones."""
    generator, grid = torch.Generator().manual_seed(3), grid_of(96, 128, aspect_ratios=[0.5, 1.0])
    gt_boxes = [random_boxes(generator, count, 96, 128) for count in (40, 0, 3, 60)]
    gt_boxes[0][:3, 2:] = gt_boxes[0][:3, :2] + 1
    whole = rule()(grid, gt_boxes)

    for block in (1, 500):
        monkeypatch.setattr(MODULES[rule], "BLOCK", block)
        assert torch.equal(rule()(grid, gt_boxes), whole)


@every_rule
def test_memory_is_far_below_a_matrix_of_boxes_and_anchors(rule):
    generator, grid = torch.Generator().manual_seed(0), grid_of(1024, 2048)
    boxes = random_boxes(generator, 300, 1024, 2048)

    assert extra_memory(rule(), grid, [boxes]) < len(boxes) * len(grid) * 4 / 4


@every_rule
@pytest.mark.parametrize(
    "grid, gt_boxes, ignore_boxes, error, message",
    [
        (GRID.boxes(), [BOX], None, TypeError, "grid: expected an AnchorGrid, got Tensor"),
        (GRID, BOX, None, TypeError, "gt_boxes: expected a list of tensors, one per image, got Tensor"),
        (GRID, [BOX, BOX.numpy()], None, TypeError, "gt_boxes[1]: expected a tensor (number of boxes, 4), got ndarray"),
        (GRID, [BOX[0]], None, ValueError, "gt_boxes[0]: expected shape (number of boxes, 4), got (4,)"),
        (GRID, [BOX[:, :3]], None, ValueError, "gt_boxes[0]: expected shape (number of boxes, 4), got (1, 3)"),
        (GRID, [BOX.long()], None, TypeError, "gt_boxes[0]: expected float32, got torch.int64"),
        (GRID, [BOX.to("meta")], None, ValueError, "gt_boxes[0]: expected device cpu, that of the grid, got meta"),
        (GRID, [BOX], [BOX.int()], TypeError, "ignore_boxes[0]: expected float32, got torch.int32"),
        (GRID, [BOX], [], ValueError, "ignore_boxes: expected one tensor for each of the 1 images of gt_boxes, got 0"),
    ],
)
def test_an_error_names_the_argument(rule, grid, gt_boxes, ignore_boxes, error, message):
    with pytest.raises(error) as raised:
        rule()(grid, gt_boxes, ignore_boxes)

    assert str(raised.value) == message


@pytest.mark.parametrize("rule", [ATSSAssigner, CenterSamplingAssigner, TopKIoUAssigner])
@pytest.mark.parametrize("topk", [0, -1, 65])
def test_k_has_bounds(rule, topk):
    with pytest.raises(ValueError, match=f"topk: expected a number from 1 to 64, got {topk}"):
        rule(topk=topk)
