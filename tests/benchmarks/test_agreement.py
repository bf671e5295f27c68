"""The comparison counts what differs, and skips what depends on the order of equals."""

from types import SimpleNamespace

import pytest
import torch

import agreement
import peers
from atss.modeling.anchors import AnchorGrid, make_cell_anchors

ARGS = SimpleNamespace(topk=9, images=5, seed=0)


def labels_of(matches):
    """Matches as the paper's code would give them: labels of one image, and no regression targets."""
    return [matches[0] + 1], None


def test_an_implementation_that_agrees_differs_nowhere():
    def theirs(grid, gt_boxes):
        return labels_of(peers.naive(9)(grid, gt_boxes))

    found = agreement.compare("atss", agreement.THREE, theirs, ARGS)

    assert found["differing"] == 0 and 0 < found["positives"] < found["anchors"]


def test_every_anchor_that_differs_is_counted():
    def theirs(grid, gt_boxes):
        matches = peers.naive(9)(grid, gt_boxes)
        matches[0, :7] += 1
        return labels_of(matches)

    assert agreement.compare("atss", agreement.ONE, theirs, ARGS)["differing"] == 7 * ARGS.images


def test_labels_stand_for_objects_background_and_ignored():
    labels = [torch.tensor([3.0, 1, 0, -1])]

    assert agreement.matches_of((labels, None)).tolist() == [2, 0, -1, -2]


# The object's centre is that of a cell, with four neighbours equally far, or none of that.
SYMMETRIC, ANYWHERE = [20.0, 20, 36, 36], [20.3, 21.4, 36.9, 35.2]


@pytest.mark.parametrize("rule", ["atss", "topk_iou"])
@pytest.mark.parametrize("box, k, tie", [(SYMMETRIC, 4, True), (SYMMETRIC, 5, False), (ANYWHERE, 4, False)])
def test_a_tie_is_where_the_last_candidate_and_the_next_anchor_are_equal(rule, box, k, tie):
    grid = AnchorGrid([(8, 8)], [8], make_cell_anchors([8]))

    assert agreement.has_tie(rule, grid, torch.tensor([box]), k) == tie


def test_levels_that_have_no_more_than_k_anchors_leave_no_choice():
    grid = AnchorGrid([(2, 2)], [8], make_cell_anchors([8]))

    assert not agreement.has_tie("atss", grid, torch.tensor([[0.0, 0, 16, 16]]), 4)


def test_images_with_ties_are_replaced(monkeypatch):
    answers = iter([True, False] * ARGS.images)
    monkeypatch.setattr(agreement, "has_tie", lambda *_: next(answers))

    found = agreement.compare("atss", agreement.ONE, lambda *a: labels_of(peers.naive(9)(*a)), ARGS)

    assert found["skipped"] == ARGS.images
