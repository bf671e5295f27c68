"""Outcomes of detections and ground truth: small cases, and a naive version with loops."""

import numpy as np
import pytest

from atss.report import outcomes as kinds
from atss.report.outcomes import confusion_matrix, outcomes_of
from tests.report.runs import arrays, made, random_boxes

BOX = (10, 10, 40, 40)
NEAR_IT = (14, 10, 40, 40)  # IoU 0.82
NEAR_OTHER_IT = (35, 10, 40, 40)  # IoU 0.23
FAR = (80, 60, 30, 20)


@pytest.mark.parametrize(
    "objects, detections, of_detections, of_objects",
    [
        ([(0, BOX)], [(0, NEAR_IT, 0.9)], "CORRECT", "CORRECT"),
        ([(0, BOX)], [], "", "MISSED"),
        ([], [(0, BOX, 0.9)], "FALSE_POSITIVE", ""),
        ([(0, BOX)], [(0, FAR, 0.9)], "FALSE_POSITIVE", "MISSED"),
        ([(0, BOX)], [(0, NEAR_OTHER_IT, 0.9)], "MISLOCALIZED", "MISLOCALIZED"),
        ([(0, BOX)], [(0, NEAR_IT, 0.9), (0, NEAR_OTHER_IT, 0.8)], "CORRECT MISLOCALIZED", "CORRECT"),
        ([(0, BOX)], [(1, NEAR_OTHER_IT, 0.9)], "NEAR_OTHER", "MISSED"),
        ([(0, BOX)], [(1, NEAR_IT, 0.9)], "WRONG_CLASS", "WRONG_CLASS"),
        ([(0, BOX)], [(0, BOX, 0.8), (0, NEAR_IT, 0.9)], "CORRECT DUPLICATE", "CORRECT"),
        # The correct class wins, whatever the score; of other classes, the best score.
        ([(0, BOX)], [(0, NEAR_IT, 0.3), (1, BOX, 0.9)], "CORRECT DUPLICATE_OTHER", "CORRECT"),
        ([(0, BOX)], [(1, NEAR_IT, 0.3), (2, BOX, 0.9)], "DUPLICATE_OTHER WRONG_CLASS", "WRONG_CLASS"),
        # An object of its own class comes before one of another class.
        ([(0, BOX), (1, FAR)], [(1, NEAR_OTHER_IT, 0.9)], "NEAR_OTHER", "MISSED MISSED"),
        ([(0, BOX), (1, NEAR_OTHER_IT)], [(1, NEAR_IT, 0.9)], "WRONG_CLASS", "WRONG_CLASS MISSED"),
        ([(0, BOX, 1)], [(0, NEAR_IT, 0.9), (0, NEAR_IT, 0.8)], "IGNORED IGNORED", "IGNORED"),
        ([(0, BOX, 1)], [(1, NEAR_IT, 0.9)], "NEAR_OTHER", "IGNORED"),
        ([], [], "", ""),
    ],
)
def test_outcomes(objects, detections, of_detections, of_objects):
    """In order of class and falling score, as `Boxes` are."""
    outcomes = outcomes_of(made(objects, detections))

    assert outcomes.kind.tolist() == [getattr(kinds, name) for name in of_detections.split()]
    assert outcomes.state.tolist() == [getattr(kinds, name) for name in of_objects.split()]


def test_outcomes_name_the_object_and_its_iou():
    outcomes = outcomes_of(
        made([(0, BOX), (1, FAR)], [(0, NEAR_IT, 0.9), (0, NEAR_OTHER_IT, 0.5), (2, FAR, 0.9), (2, BOX, 0.1)])
    )

    assert outcomes.object.tolist() == [0, 0, 1, 0]
    assert outcomes.iou == pytest.approx([36 / 44, 15 / 65, 1.0, 1.0])


def iou(a, b, crowd=False):
    """Of boxes as x, y, width, height."""
    width, height = (min(a[i] + a[i + 2], b[i] + b[i + 2]) - max(a[i], b[i]) for i in (0, 1))
    shared = max(0.0, width) * max(0.0, height)
    return shared / (a[2] * a[3] if crowd else a[2] * a[3] + b[2] * b[3] - shared)


def naive(boxes):
    """Return kinds and objects of detections, and states of objects."""
    objects, detections = boxes
    labels, partners = [kinds.FALSE_POSITIVE] * len(detections), [-1] * len(detections)
    states = [kinds.IGNORED if crowd else kinds.MISSED for crowd in objects["crowd"]]

    def overlap(d, g):
        if detections["image"][d] != objects["image"][g]:
            return 0.0
        return iou(detections["box"][d], objects["box"][g], objects["crowd"][g])

    def same(d, g):
        return detections["category"][d] == objects["category"][g]

    def best(d, among):
        """The object that overlaps most, the later of equal ones."""
        return max(reversed(among), key=lambda g: overlap(d, g), default=None)

    every = range(len(objects))
    by_score = sorted(range(len(detections)), key=lambda d: -detections["score"][d])
    for d in by_score:
        near = [g for g in every if same(d, g) and overlap(d, g) >= 0.5]
        chosen = best(d, [g for g in near if states[g] == kinds.MISSED])
        if chosen is not None:
            labels[d], partners[d], states[chosen] = kinds.CORRECT, chosen, kinds.CORRECT
        elif any(objects["crowd"][g] for g in near):
            labels[d], partners[d] = kinds.IGNORED, best(d, [g for g in near if objects["crowd"][g]])
    for d in by_score:
        chosen = best(d, [g for g in every if states[g] == kinds.MISSED and overlap(d, g) >= 0.5])
        if labels[d] == kinds.FALSE_POSITIVE and chosen is not None:
            labels[d], partners[d], states[chosen] = kinds.WRONG_CLASS, chosen, kinds.WRONG_CLASS
    for d in range(len(detections)):
        real = [g for g in every if not objects["crowd"][g]]
        rules = (
            (kinds.DUPLICATE, [g for g in real if same(d, g) and overlap(d, g) >= 0.5]),
            (kinds.DUPLICATE_OTHER, [g for g in real if overlap(d, g) >= 0.5]),
            (kinds.MISLOCALIZED, [g for g in real if same(d, g) and overlap(d, g) >= 0.1]),
            (kinds.NEAR_OTHER, [g for g in every if overlap(d, g) >= 0.1]),
        )
        if labels[d] == kinds.FALSE_POSITIVE:
            labels[d], partners[d] = next(((k, best(d, gs)) for k, gs in rules if gs), (kinds.FALSE_POSITIVE, -1))
    for d, kind in enumerate(labels):
        if kind == kinds.MISLOCALIZED and states[partners[d]] == kinds.MISSED:
            states[partners[d]] = kinds.MISLOCALIZED
    return labels, partners, states


@pytest.mark.parametrize("seed", range(30))
def test_outcomes_equal_the_naive_ones(seed):
    boxes = arrays(*random_boxes(seed))

    outcomes = outcomes_of(boxes)

    labels, partners, states = naive(boxes)
    assert (outcomes.kind.tolist(), outcomes.object.tolist(), outcomes.state.tolist()) == (labels, partners, states)
    overlap = [
        iou(box, boxes.objects["box"][g], boxes.objects["crowd"][g]) if g >= 0 else 0
        for box, g in zip(boxes.detections["box"], partners, strict=True)
    ]
    assert outcomes.iou == pytest.approx(overlap)


def test_the_random_boxes_have_every_outcome():
    found = [naive(arrays(*random_boxes(seed))) for seed in range(30)]
    assert {label for labels, _, _ in found for label in labels} == set(range(8))
    expected = {kinds.CORRECT, kinds.WRONG_CLASS, kinds.MISLOCALIZED, kinds.MISSED, kinds.IGNORED}
    assert {state for _, _, states in found for state in states} == expected


def test_a_confusion_matrix():
    """Two a: one correct, one detected as b. A b: missed. Also a duplicate a, and a false positive c."""
    objects = [(0, BOX), (0, FAR), (1, (60, 5, 15, 15))]
    detections = [(0, NEAR_IT, 0.9), (0, BOX, 0.5), (1, FAR, 0.9), (2, (5, 70, 15, 15), 0.9)]
    boxes = made(objects, detections)

    matrix = confusion_matrix(boxes, outcomes_of(boxes), 3)

    assert matrix.tolist() == [[1, 1, 0, 0], [0, 0, 0, 1], [0, 0, 0, 0], [1, 0, 1, 0]]


@pytest.mark.parametrize("seed", range(10))
def test_a_confusion_matrix_counts_every_object_and_every_detection_once(seed):
    boxes = arrays(*random_boxes(seed))
    outcomes = outcomes_of(boxes)

    matrix = confusion_matrix(boxes, outcomes, 4)

    objects = boxes.objects[~boxes.objects["crowd"]]
    detections = boxes.detections[outcomes.kind != kinds.IGNORED]
    assert matrix[:4].sum(axis=1).tolist() == np.bincount(objects["category"], minlength=4).tolist()
    assert matrix[:, :4].sum(axis=0).tolist() == np.bincount(detections["category"], minlength=4).tolist()
    assert np.trace(matrix) == (outcomes.kind == kinds.CORRECT).sum() and matrix[4, 4] == 0
    assert matrix[:4, :4].sum() - np.trace(matrix) == (outcomes.kind == kinds.WRONG_CLASS).sum()
