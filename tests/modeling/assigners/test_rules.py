"""What all rules but ATSS, which has its own tests, have in common."""

import logging

import pytest
import torch

from assigner import extra_memory
from atss.modeling.assigners import (
    CenterSamplingAssigner,
    IoUAssigner,
    ScaleRangeAssigner,
    TopKIoUAssigner,
    center_sampling,
    topk_iou,
    windows,
)
from tests.modeling.assigners.boxes import INVALID, grid_of, random_objects

MODULES = {
    IoUAssigner: windows,
    ScaleRangeAssigner: windows,
    CenterSamplingAssigner: center_sampling,
    TopKIoUAssigner: topk_iou,
}
every_rule = pytest.mark.parametrize("rule", MODULES)


@every_rule
@pytest.mark.parametrize("gt_boxes", [[], [torch.empty(0, 4)], [torch.empty(0, 4), torch.empty(0, 4)]])
def test_no_objects_and_no_images(rule, gt_boxes):
    grid = grid_of(32, 32)

    matches = rule()(grid, gt_boxes)

    assert matches.shape == (len(gt_boxes), len(grid)) and matches.dtype == torch.int64
    assert (matches == -1).all()


@every_rule
@pytest.mark.parametrize("bad", INVALID)
def test_objects_without_area_or_finite_coordinates_match_nothing_and_disturb_nobody(rule, bad):
    grid = grid_of(64, 96, aspect_ratios=[0.5, 1.0])
    good, bad = torch.tensor([[10.0, 12, 40, 50], [30.0, 30, 32, 31]]), torch.tensor([bad])
    alone = rule()(grid, [good])[0]

    beside = rule()(grid, [torch.cat([bad, good]), bad])

    assert torch.equal(beside[0], alone + (alone >= 0)) and (alone >= 0).any()
    assert (beside[1] == -1).all()


@every_rule
def test_objects_that_cannot_match_are_counted_in_one_warning(caplog, rule):
    grid, assigner = grid_of(32, 32), rule()
    good, bad = torch.tensor([[2.0, 3, 20, 30]]), torch.tensor([[5.0, 5, 5, 9], [torch.nan, 0, 9, 9]])

    with caplog.at_level(logging.WARNING, logger="atss.modeling.assigners"):
        assigner(grid, [good])
        assert not caplog.records
        for _ in range(3):
            assigner(grid, [torch.cat([bad[:1], good]), bad[1:]])

    assert [record.message for record in caplog.records] == [
        "2 object(s) without area or with coordinates that are not finite match nothing. This is said once."
    ]


@every_rule
def test_ignored_regions_take_background_only(rule):
    grid = grid_of(64, 64, [8, 16, 32, 64, 128])
    objects, none = torch.tensor([[3.0, 4, 30, 50]]), torch.empty(0, 4)
    plain = rule()(grid, [objects, none, none])

    matches = rule()(grid, [objects, none, none], [torch.tensor([[0.0, 0, 64, 32]]), none, none])

    y = (grid.boxes()[:, 1] + grid.boxes()[:, 3]) / 2
    x = (grid.boxes()[:, 0] + grid.boxes()[:, 2]) / 2
    upper = (y < 32) & (x < 64)
    assert torch.equal(matches[0], plain[0].where(~upper | (plain[0] != -1), -2))
    assert torch.equal(matches[1:], plain[1:])
    assert (plain[0] >= 0).any() and (matches[0] == -2).any()


@every_rule
def test_large_batches_are_worked_off_in_blocks_with_the_same_matches(monkeypatch, rule):
    """Conflicts between objects of different blocks among them, and tiny objects that keep anchors of large ones."""
    generator, grid = torch.Generator().manual_seed(3), grid_of(96, 128, aspect_ratios=[0.5, 1.0])
    gt_boxes = [random_objects(generator, count, 96, 128) for count in (40, 0, 3, 60)]
    gt_boxes[0][:3, 2:] = gt_boxes[0][:3, :2] + 1
    whole = rule()(grid, gt_boxes)

    for block in (1, 500):
        monkeypatch.setattr(MODULES[rule], "BLOCK", block)
        assert torch.equal(rule()(grid, gt_boxes), whole)


@every_rule
def test_images_do_not_disturb_each_other(rule):
    generator, grid = torch.Generator().manual_seed(4), grid_of(96, 128, aspect_ratios=[0.5, 1.0, 2.0])
    gt_boxes = [random_objects(generator, count, 96, 128) for count in (9, 0, 1, 30)]

    matches = rule()(grid, gt_boxes)

    for found, boxes in zip(matches, gt_boxes, strict=True):
        assert torch.equal(found, rule()(grid, [boxes])[0])


@every_rule
def test_memory_is_far_below_a_matrix_of_objects_and_anchors(rule):
    generator, grid = torch.Generator().manual_seed(0), grid_of(1024, 2048)
    boxes = random_objects(generator, 300, 1024, 2048)

    assert extra_memory(rule(), grid, [boxes]) < len(boxes) * len(grid) * 4 / 4


@every_rule
def test_arguments_that_do_not_fit_are_named(rule):
    with pytest.raises(ValueError, match=r"gt_boxes\[0\]: expected shape \(number of boxes, 4\), got \(4,\)"):
        rule()(grid_of(32, 32), [torch.ones(4)])
