"""When an exported model agrees with the PyTorch model, and which differences rounding explains."""

import pytest
import torch

from atss.export import Comparison, ExportedATSS, compare, suppress
from atss.export.selection import best
from atss.export.verification import candidates_of, find_undecided, match, suppressed
from atss.modeling.anchors import AnchorGrid, make_cell_anchors
from atss.modeling.box_coding import BoxCoding
from atss.modeling.inference import BoxSelector, Detections
from tests.export.two_levels import make_detector

SELECTOR = BoxSelector(score_threshold=0.1, nms_threshold=0.5, max_detections=3)


def detections(*rows):
    """Boxes of class 0, ten pixels wide and high, with x1 and score from `rows`."""
    boxes = [[x, 0.0, x + 10, 10.0] for x, _ in rows]
    return Detections(
        torch.tensor(boxes).reshape(-1, 4), torch.tensor([score for _, score in rows]), torch.zeros(len(rows)).long()
    )


def compared(found, expected, candidates=None):
    """Compare (x, score) rows; all candidates surely take part."""
    rows = expected if candidates is None else candidates
    comparison = Comparison()
    comparison.add(detections(*found), detections(*expected), detections(*rows), torch.ones(len(rows)), SELECTOR)
    return comparison


def undecided(*rows, margin=1.0):
    return find_undecided(detections(*rows), torch.full((len(rows),), margin), SELECTOR).tolist()


def test_the_order_of_boxes_does_not_matter():
    comparison = compared([(0.0, 0.8), (40.0, 0.8)], [(40.05, 0.8), (0.0, 0.8005)])

    assert not comparison.disagreements and comparison.num_boxes == 2
    assert comparison.box_difference == pytest.approx(0.05, abs=1e-5)
    assert comparison.score_difference == pytest.approx(5e-4, abs=1e-6)


@pytest.mark.parametrize("found", [(0.2, 0.8), (0.0, 0.803)])
def test_boxes_or_scores_that_differ_too_much_are_two_disagreements(found):
    comparison = compared([found], [(0.0, 0.8)])

    assert len(comparison.disagreements) == 2 and comparison.num_boxes == 0
    assert "only the exported model detects class 0" in comparison.disagreements[0]
    assert (
        comparison.disagreements[1] == "only the PyTorch model detects class 0, score 0.8000, at [0.0, 0.0, 10.0, 10.0]"
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

    comparison = compared(rows[:1], rows[1:], rows)

    assert not comparison.disagreements and comparison.num_undecided == 2


def test_with_different_scores_only_one_may():
    rows = [(0.0, 0.8), (2.0, 0.81)]

    assert len(compared(rows[:1], rows[1:], rows).disagreements) == 2


def test_an_iou_that_equals_the_threshold_excuses():
    third = 10 / 3  # two boxes of width 10 moved by it have an IoU of one half
    for x, excused in ((third, True), (third + 0.1, False), (third - 0.1, False)):
        rows = [(0.0, 0.9), (x, 0.8)]
        assert (not compared(rows, rows[:1], rows).disagreements) == excused


def test_what_depends_on_an_undecided_box_is_undecided_too():
    """So is the fourth box, which is among the best three if one of the others is suppressed."""
    rows = [(0.0, 0.9), (10 / 3, 0.8), (5.0, 0.7), (40.0, 0.6)]

    assert undecided(*rows) == [False, True, True, True]
    assert undecided(*rows[:3]) == [False, True, True]


def test_boxes_with_equal_scores_compete_for_the_last_place():
    rows = [(0.0, 0.9), (20.0, 0.8), (40.0, 0.7), (60.0, 0.6995), (80.0, 0.5)]

    assert undecided(*rows) == [False, False, True, True, False]


def test_scores_at_the_threshold_excuse():
    assert undecided((0.0, 0.3), margin=5e-4) == [True]
    assert undecided((0.0, 0.3), margin=2e-3) == [False]


def test_suppressed_boxes_do_not_suppress_others():
    boxes, scores, _ = detections((0.0, 0.9), (2.0, 0.8), (4.0, 0.7), (30.0, 0.6))

    kept, gone = suppressed(boxes, scores, torch.ones(4, dtype=torch.bool), 0.5)

    # The first suppresses the second, which then cannot suppress the third.
    assert kept.tolist() == [True, False, True, True] and gone.tolist() == [False, True, False, False]


class Head:
    box_selector = BoxSelector(score_threshold=0.1, topk_per_level=2, score_root=False)
    box_coding = BoxCoding()


def test_margins_are_those_to_the_threshold_and_to_the_last_place():
    grid = AnchorGrid([(2, 2)], [16], make_cell_anchors([16], 1.0))
    scores = torch.tensor([[0.9], [0.5], [0.4995], [0.0999]])

    candidates, margins = candidates_of(Head, grid, (scores.logit(), torch.zeros(4, 4), None), (32, 32))

    torch.testing.assert_close(candidates.scores, torch.tensor([0.9, 0.5, 0.4995]))
    torch.testing.assert_close(margins, torch.tensor([0.4005, 0.0005, -0.0005]), atol=1e-6, rtol=0)


def test_boxes_with_almost_no_area_are_undecided():
    grid = AnchorGrid([(1, 2)], [16], make_cell_anchors([16], 1.0))

    _, margins = candidates_of(Head, grid, (torch.ones(2, 1), torch.zeros(2, 4), None), (16, 16.05))

    assert (margins > 1e-3).tolist() == [True, False]


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
