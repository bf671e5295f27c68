"""What becomes of detections and objects: small cases, and a naive version that goes through them one by one."""

import numpy as np
import pytest

from atss.report.mistakes import (
    BADLY_PLACED,
    BESIDE,
    CONFUSED,
    DUPLICATE,
    FALSE_FIND,
    IGNORED,
    MISSED,
    RIGHT,
    SECOND_CLASS,
    confusion_matrix,
    judge,
)
from tests.report.runs import arrays, made, random_boxes

BOX = (10, 10, 40, 40)
NEAR_IT = (14, 10, 40, 40)  # IoU 0.82
BESIDE_IT = (35, 10, 40, 40)  # IoU 0.23
FAR = (80, 60, 30, 20)


@pytest.mark.parametrize(
    "objects, detections, kinds, states",
    [
        ([(0, BOX)], [(0, NEAR_IT, 0.9)], [RIGHT], [RIGHT]),
        ([(0, BOX)], [], [], [MISSED]),
        ([], [(0, BOX, 0.9)], [FALSE_FIND], []),
        ([(0, BOX)], [(0, FAR, 0.9)], [FALSE_FIND], [MISSED]),
        ([(0, BOX)], [(0, BESIDE_IT, 0.9)], [BADLY_PLACED], [BADLY_PLACED]),
        ([(0, BOX)], [(0, NEAR_IT, 0.9), (0, BESIDE_IT, 0.8)], [RIGHT, BADLY_PLACED], [RIGHT]),
        ([(0, BOX)], [(1, BESIDE_IT, 0.9)], [BESIDE], [MISSED]),
        ([(0, BOX)], [(1, NEAR_IT, 0.9)], [CONFUSED], [CONFUSED]),
        ([(0, BOX)], [(0, BOX, 0.8), (0, NEAR_IT, 0.9)], [RIGHT, DUPLICATE], [RIGHT]),
        # The right class wins, whatever the score; of wrong ones the best.
        ([(0, BOX)], [(0, NEAR_IT, 0.3), (1, BOX, 0.9)], [RIGHT, SECOND_CLASS], [RIGHT]),
        ([(0, BOX)], [(1, NEAR_IT, 0.3), (2, BOX, 0.9)], [SECOND_CLASS, CONFUSED], [CONFUSED]),
        # An object of its own class tells more of a detection than one of another.
        ([(0, BOX), (1, FAR)], [(1, BESIDE_IT, 0.9)], [BESIDE], [MISSED, MISSED]),
        ([(0, BOX), (1, BESIDE_IT)], [(1, NEAR_IT, 0.9)], [CONFUSED], [CONFUSED, MISSED]),
        ([(0, BOX, 1)], [(0, NEAR_IT, 0.9), (0, NEAR_IT, 0.8)], [IGNORED, IGNORED], [IGNORED]),
        ([(0, BOX, 1)], [(1, NEAR_IT, 0.9)], [BESIDE], [IGNORED]),
        ([], [], [], []),
    ],
)
def test_kinds(objects, detections, kinds, states):
    """In order of class and falling score, as `Boxes` are."""
    verdict = judge(made(objects, detections), 3)

    assert verdict.kind.tolist() == kinds and verdict.state.tolist() == states


def test_objects_and_ious_are_those_concerned():
    verdict = judge(
        made([(0, BOX), (1, FAR)], [(0, NEAR_IT, 0.9), (0, BESIDE_IT, 0.5), (2, FAR, 0.9), (2, BOX, 0.1)]), 3
    )

    assert verdict.object.tolist() == [0, 0, 1, 0]
    assert verdict.iou == pytest.approx([36 / 44, 15 / 65, 1.0, 1.0])


def iou(a, b, crowd=False):
    """Of boxes as x, y, width, height."""
    width, height = (min(a[i] + a[i + 2], b[i] + b[i + 2]) - max(a[i], b[i]) for i in (0, 1))
    shared = max(0.0, width) * max(0.0, height)
    return shared / (a[2] * a[3] if crowd else a[2] * a[3] + b[2] * b[3] - shared)


def naive(boxes):
    """Kinds and objects of detections, states of objects, with loops."""
    objects, detections = boxes
    kinds, partners = [FALSE_FIND] * len(detections), [-1] * len(detections)
    states = [IGNORED if crowd else MISSED for crowd in objects["crowd"]]

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
        chosen = best(d, [g for g in near if states[g] == MISSED])
        if chosen is not None:
            kinds[d], partners[d], states[chosen] = RIGHT, chosen, RIGHT
        elif any(objects["crowd"][g] for g in near):
            kinds[d], partners[d] = IGNORED, best(d, [g for g in near if objects["crowd"][g]])
    for d in by_score:
        chosen = best(d, [g for g in every if states[g] == MISSED and overlap(d, g) >= 0.5])
        if kinds[d] == FALSE_FIND and chosen is not None:
            kinds[d], partners[d], states[chosen] = CONFUSED, chosen, CONFUSED
    for d in range(len(detections)):
        real = [g for g in every if not objects["crowd"][g]]
        rules = (
            (DUPLICATE, [g for g in real if same(d, g) and overlap(d, g) >= 0.5]),
            (SECOND_CLASS, [g for g in real if overlap(d, g) >= 0.5]),
            (BADLY_PLACED, [g for g in real if same(d, g) and overlap(d, g) >= 0.1]),
            (BESIDE, [g for g in every if overlap(d, g) >= 0.1]),
        )
        if kinds[d] == FALSE_FIND:
            kinds[d], partners[d] = next(((k, best(d, gs)) for k, gs in rules if gs), (FALSE_FIND, -1))
    for d, kind in enumerate(kinds):
        if kind == BADLY_PLACED and states[partners[d]] == MISSED:
            states[partners[d]] = BADLY_PLACED
    return kinds, partners, states


@pytest.mark.parametrize("seed", range(30))
def test_the_verdict_is_the_naive_one(seed):
    boxes = arrays(*random_boxes(seed))

    verdict = judge(boxes, 4)

    kinds, partners, states = naive(boxes)
    assert verdict.kind.tolist() == kinds
    assert verdict.object.tolist() == partners
    assert verdict.state.tolist() == states
    overlap = [
        iou(box, boxes.objects["box"][g], boxes.objects["crowd"][g]) if g >= 0 else 0
        for box, g in zip(boxes.detections["box"], partners, strict=True)
    ]
    assert verdict.iou == pytest.approx(overlap)


def test_the_random_boxes_have_every_kind():
    kinds, states = set(), set()
    for seed in range(30):
        found = naive(arrays(*random_boxes(seed)))
        kinds |= set(found[0])
        states |= set(found[2])
    assert kinds == {RIGHT, CONFUSED, DUPLICATE, SECOND_CLASS, BADLY_PLACED, BESIDE, FALSE_FIND, IGNORED}
    assert states == {RIGHT, CONFUSED, BADLY_PLACED, MISSED, IGNORED}


def test_a_confusion_matrix():
    """Two a: one right, one taken for b. A b: missed. Beside them a second a, a c where nothing is."""
    objects = [(0, BOX), (0, FAR), (1, (60, 5, 15, 15))]
    detections = [(0, NEAR_IT, 0.9), (0, BOX, 0.5), (1, FAR, 0.9), (2, (5, 70, 15, 15), 0.9)]
    boxes = made(objects, detections)

    matrix = confusion_matrix(boxes, judge(boxes, 3), 3)

    assert matrix.tolist() == [[1, 1, 0, 0], [0, 0, 0, 1], [0, 0, 0, 0], [1, 0, 1, 0]]


@pytest.mark.parametrize("seed", range(10))
def test_a_confusion_matrix_counts_every_object_and_every_detection_once(seed):
    boxes = arrays(*random_boxes(seed))
    verdict = judge(boxes, 4)

    matrix = confusion_matrix(boxes, verdict, 4)

    objects = boxes.objects[~boxes.objects["crowd"]]
    detections = boxes.detections[verdict.kind != IGNORED]
    assert matrix[:4].sum(axis=1).tolist() == np.bincount(objects["category"], minlength=4).tolist()
    assert matrix[:, :4].sum(axis=0).tolist() == np.bincount(detections["category"], minlength=4).tolist()
    assert np.trace(matrix) == (verdict.kind == RIGHT).sum() and matrix[4, 4] == 0
    assert matrix[:4, :4].sum() - np.trace(matrix) == (verdict.kind == CONFUSED).sum()
