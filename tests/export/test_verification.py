"""What counts as agreement, and what rounding excuses."""

import pytest
import torch

from atss.export import Comparison, ExportedATSS, compare, suppress
from atss.export.selection import best
from atss.export.verification import Candidates, compare_image, match, suppressed
from atss.modeling.anchors import AnchorGrid, make_cell_anchors
from atss.modeling.box_coding import BoxCoding
from atss.modeling.inference import BoxSelector, Detections
from tests.export.two_levels import make_detector

SELECTOR = BoxSelector(score_threshold=0.1, nms_threshold=0.5, max_detections=3)


def detections(*rows):
    """Of (x, score): boxes of class 0, ten pixels wide and high, that begin at x."""
    boxes = [[x, 0.0, x + 10, 10.0] for x, _ in rows]
    return Detections(
        torch.tensor(boxes).reshape(-1, 4), torch.tensor([score for _, score in rows]), torch.zeros(len(rows)).long()
    )


class Given:
    """Candidates that the tests below make up, all of them sure to take part."""

    def __init__(self, *rows, margin=1.0):
        self.detections = detections(*rows)
        self.margins = torch.full((len(rows),), margin)

    undecided = Candidates.undecided


def compared(found, expected, candidates=None):
    comparison = Comparison()
    compare_image(comparison, detections(*found), detections(*expected), candidates or Given(*expected), SELECTOR)
    return comparison


def test_boxes_in_another_order_are_the_same():
    comparison = compared([(0.0, 0.8), (40.0, 0.8)], [(40.05, 0.8), (0.0, 0.8005)])

    assert not comparison.disagreements and comparison.num_boxes == 2
    assert comparison.box_difference == pytest.approx(0.05, abs=1e-5)
    assert comparison.score_difference == pytest.approx(5e-4, abs=1e-6)


@pytest.mark.parametrize("found", [(0.2, 0.8), (0.0, 0.803)])
def test_boxes_and_scores_that_are_too_far_off_count_twice(found):
    comparison = compared([found], [(0.0, 0.8)])

    assert len(comparison.disagreements) == 2 and comparison.num_boxes == 0
    assert "only the exported model finds class 0" in comparison.disagreements[0]
    assert (
        "only the PyTorch model finds class 0, score 0.8000, at [0.0, 0.0, 10.0, 10.0]" in comparison.disagreements[1]
    )


def test_classes_must_be_the_same():
    first, second = detections((0.0, 0.8)), detections((0.0, 0.8))

    assert match(first, second).tolist() == [0]
    assert match(first, second._replace(classes=torch.tensor([1]))).tolist() == [-1]


def test_a_box_has_one_partner():
    comparison = compared([(0.0, 0.8), (0.0, 0.8)], [(0.0, 0.8)])

    assert len(comparison.disagreements) == 1 and comparison.num_boxes == 1


def test_a_box_that_is_missing_is_a_disagreement():
    assert len(compared([], [(0.0, 0.8)]).disagreements) == 1


def test_of_two_boxes_with_equal_scores_either_may_suppress_the_other():
    rows = [(0.0, 0.8), (2.0, 0.8004)]

    comparison = compared(rows[:1], rows[1:], Given(*rows))

    assert not comparison.disagreements and comparison.num_undecided == 2


def test_with_different_scores_only_one_may():
    rows = [(0.0, 0.8), (2.0, 0.81)]

    assert len(compared(rows[:1], rows[1:], Given(*rows)).disagreements) == 2


def test_an_iou_that_equals_the_threshold_excuses():
    third = 10 / 3  # two boxes of width 10 moved by it have an IoU of one half
    for x, excused in ((third, True), (third + 0.1, False), (third - 0.1, False)):
        rows = [(0.0, 0.9), (x, 0.8)]
        assert (not compared(rows, rows[:1], Given(*rows)).disagreements) == excused


def test_what_hangs_on_an_undecided_box_is_undecided_too():
    """Also the last place, which the fourth has if one of the others goes."""
    rows = [(0.0, 0.9), (10 / 3, 0.8), (5.0, 0.7), (40.0, 0.6)]

    assert Given(*rows).undecided(SELECTOR).tolist() == [False, True, True, True]
    assert Given(*rows[:3]).undecided(SELECTOR).tolist() == [False, True, True]


def test_the_last_place_may_be_anyones_with_an_equal_score():
    rows = [(0.0, 0.9), (20.0, 0.8), (40.0, 0.7), (60.0, 0.6995), (80.0, 0.5)]

    assert Given(*rows).undecided(SELECTOR).tolist() == [False, False, True, True, False]


def test_scores_at_the_threshold_excuse():
    assert Given((0.0, 0.3), margin=5e-4).undecided(SELECTOR).all()
    assert not Given((0.0, 0.3), margin=2e-3).undecided(SELECTOR).any()


def test_what_stays_and_goes_is_what_suppression_gives():
    boxes, scores, _ = detections((0.0, 0.9), (2.0, 0.8), (4.0, 0.7), (30.0, 0.6))

    stays, goes = suppressed(boxes, scores, torch.ones(4, dtype=torch.bool), 0.5)

    # The second goes for the first, and then cannot suppress the third.
    assert stays.tolist() == [True, False, True, True] and goes.tolist() == [False, True, False, False]


class Head:
    box_selector = BoxSelector(score_threshold=0.1, topk_per_level=2, score_root=False)
    box_coding = BoxCoding()


def test_margins_are_those_to_the_threshold_and_to_the_last_place():
    grid = AnchorGrid([(2, 2)], [16], make_cell_anchors([16], 1.0))
    scores = torch.tensor([[0.9], [0.5], [0.4995], [0.0999]])

    candidates = Candidates(Head, grid, (scores.logit(), torch.zeros(4, 4), None), (32, 32))

    torch.testing.assert_close(candidates.detections.scores, torch.tensor([0.9, 0.5, 0.4995]))
    torch.testing.assert_close(candidates.margins, torch.tensor([0.4005, 0.0005, -0.0005]), atol=1e-6, rtol=0)


def test_boxes_with_next_to_no_area_are_undecided():
    grid = AnchorGrid([(1, 2)], [16], make_cell_anchors([16], 1.0))

    candidates = Candidates(Head, grid, (torch.ones(2, 1), torch.zeros(2, 4), None), (16, 16.05))

    assert (candidates.margins > 1e-3).tolist() == [True, False]


@pytest.mark.parametrize("is_suppressed", [True, False])
def test_noise_far_below_the_tolerance_is_no_disagreement_and_more_is(images, is_suppressed):
    detector = make_detector()
    exported = ExportedATSS(detector)

    def model_with_noise(size):
        @torch.no_grad()
        def model(images, sizes):
            boxes, scores, classes = exported(images, sizes)
            noise = torch.randn(scores.shape, generator=torch.Generator().manual_seed(0))
            scores = (scores + noise * size * (scores > 0)).clamp(min=0)
            if is_suppressed:
                selector = detector.head.box_selector
                kept = suppress(boxes, scores, classes.clamp(min=0), selector.nms_threshold, 3, 20)
                boxes, scores, classes = best(boxes, scores.where(kept, 0), classes, 20)
            return boxes, scores, classes

        return model

    def differences(size):
        return compare(detector, model_with_noise(size), [images], is_suppressed)

    assert not differences(1e-4).disagreements
    assert differences(1e-2).disagreements
