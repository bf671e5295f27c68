"""When an exported model agrees with the PyTorch model, and which differences rounding explains."""

from functools import partial

import pytest
import torch

from atss.export import Comparison, ExportedATSS, compare, suppress
from atss.export.verification import candidates_of, find_undecided, match, suppressed
from atss.modeling.anchors import AnchorGrid, make_cell_anchors
from atss.modeling.box_coding import BoxCoding
from atss.modeling.inference import BoxSelector, Detections, best
from tests.export.two_levels import make_detector

SELECTOR = BoxSelector(score_threshold=0.1, nms_threshold=0.5, max_detections=3)


def detections(*rows):
    """Boxes of class 0, ten pixels wide and high, with x1 and score from `rows`."""
    boxes = [[x, 0.0, x + 10, 10.0] for x, _ in rows]
    return Detections(
        torch.tensor(boxes).reshape(-1, 4), torch.tensor([score for _, score in rows]), torch.zeros(len(rows)).long()
    )


def compared(found, expected, candidates):
    """Compare (x, score) rows; all candidates surely take part."""
    comparison = Comparison()
    comparison.add(
        detections(*found), detections(*expected), detections(*candidates), torch.ones(len(candidates)), SELECTOR
    )
    return comparison


def test_the_order_of_boxes_does_not_matter():
    rows = [(40.05, 0.8), (0.0, 0.8005)]

    comparison = compared([(0.0, 0.8), (40.0, 0.8)], rows, rows)

    assert not comparison.disagreements and comparison.num_boxes == 2
    assert comparison.box_difference == pytest.approx(0.05, abs=1e-5)
    assert comparison.score_difference == pytest.approx(5e-4, abs=1e-6)


@pytest.mark.parametrize("found", [(0.2, 0.8), (0.0, 0.803)])
def test_boxes_or_scores_that_differ_too_much_are_two_disagreements(found):
    comparison = compared([found], [(0.0, 0.8)], [(0.0, 0.8)])

    first, second = comparison.disagreements
    assert comparison.num_boxes == 0 and "only the exported model detects class 0" in first
    assert second == "only the PyTorch model detects class 0, score 0.8000, at [0.0, 0.0, 10.0, 10.0]"


def test_classes_must_be_the_same():
    first, second = detections((0.0, 0.8)), detections((0.0, 0.8))

    assert match(first, second).tolist() == [0]
    assert match(first, second._replace(classes=torch.tensor([1]))).tolist() == [-1]


THIRD = 10 / 3  # two boxes of width 10 that are this far apart have an IoU of one half, the threshold
BOX, EQUAL, DIFFERENT = [(0.0, 0.8)], [(0.0, 0.8), (2.0, 0.8004)], [(0.0, 0.8), (2.0, 0.81)]
AT_THRESHOLD, ABOVE, BELOW = ([(0.0, 0.9), (x, 0.8)] for x in (THIRD, THIRD - 0.1, THIRD + 0.1))
# What the exported model finds, what PyTorch's finds, candidates: numbers of disagreements, undecided and common boxes.
COMPARED = {
    "a box has one partner": (BOX * 2, BOX, BOX, (1, 0, 1)),
    "a box that is missing": ([], BOX, BOX, (1, 0, 0)),
    "of two boxes with equal scores either may suppress the other": (EQUAL[:1], EQUAL[1:], EQUAL, (0, 2, 0)),
    "with different scores only one may": (DIFFERENT[:1], DIFFERENT[1:], DIFFERENT, (2, 0, 0)),
    "an IoU at the threshold excuses": (AT_THRESHOLD, AT_THRESHOLD[:1], AT_THRESHOLD, (0, 1, 1)),
    "an IoU above it does not": (ABOVE, ABOVE[:1], ABOVE, (1, 0, 1)),
    "an IoU below it does not": (BELOW, BELOW[:1], BELOW, (1, 0, 1)),
}


@pytest.mark.parametrize("found, expected, candidates, numbers", COMPARED.values(), ids=COMPARED)
def test_a_box_that_one_model_finds_is_a_disagreement_unless_rounding_decides(found, expected, candidates, numbers):
    comparison = compared(found, expected, candidates)

    assert (len(comparison.disagreements), comparison.num_undecided, comparison.num_boxes) == numbers


ON_UNDECIDED = [(0.0, 0.9), (THIRD, 0.8), (5.0, 0.7)]
EQUAL_SCORES = [(0.0, 0.9), (20.0, 0.8), (40.0, 0.7), (60.0, 0.6995), (80.0, 0.5)]
# Boxes, by how much they take part: which of them are undecided.
UNDECIDED = {
    "what depends on an undecided box": (ON_UNDECIDED, 1.0, [False, True, True]),
    "a box among the best three if another is suppressed": (
        [*ON_UNDECIDED, (40.0, 0.6)],
        1.0,
        [False, True, True, True],
    ),
    "boxes with equal scores compete for the last place": (EQUAL_SCORES, 1.0, [False, False, True, True, False]),
    "a score at the threshold": (BOX, 5e-4, [True]),
    "a score above it": (BOX, 2e-3, [False]),
}


@pytest.mark.parametrize("rows, margin, expected", UNDECIDED.values(), ids=UNDECIDED)
def test_which_boxes_are_undecided(rows, margin, expected):
    assert find_undecided(detections(*rows), torch.full((len(rows),), margin), SELECTOR).tolist() == expected


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

    @torch.no_grad()
    def noisy(images, sizes, size):
        boxes, scores, classes = exported(images, sizes)
        noise = torch.randn(scores.shape, generator=torch.Generator().manual_seed(0))
        scores = (scores + noise * size * (scores > 0)).clamp(min=0)
        if is_suppressed:
            kept = suppress(boxes, scores, classes.clamp(min=0), detector.head.box_selector.nms_threshold, 3, 20)
            boxes, scores, classes = best(boxes, scores.where(kept, 0), classes, 20)
        return boxes, scores, classes

    def differences(size):
        return compare(detector, partial(noisy, size=size), [images], is_suppressed)

    assert not differences(1e-4).disagreements
    assert differences(1e-2).disagreements
