"""The outcome of every detection and ground-truth box: correct, or which kind of error."""

from typing import NamedTuple

import numpy as np
from pycocotools import mask

from .boxes import coco_eval, image_slice

# IoU from which a detection matches a box, and below which the two have nothing in common.
SAME, NEAR = 0.5, 0.1

# Of a detection.
CORRECT, WRONG_CLASS, DUPLICATE, DUPLICATE_OTHER, MISLOCALIZED, NEAR_OTHER, FALSE_POSITIVE, IGNORED = range(8)
# Of a ground-truth box; CORRECT, WRONG_CLASS, MISLOCALIZED and IGNORED (a crowd) are as above.
MISSED = 8


class Outcomes(NamedTuple):
    """Outcomes of D detections and G ground-truth boxes.

    The outcome of a detection is the first of these that applies:

    - CORRECT: it matches a box of its class.
    - IGNORED: it lies in a crowd of its class.
    - WRONG_CLASS: it matches a box of another class for which no detection is correct.
    - DUPLICATE: its IoU with a box of its class is at least SAME, but a better detection matches that box.
    - DUPLICATE_OTHER: the same with a box of another class.
    - MISLOCALIZED: its IoU with a box of its class is at least NEAR.
    - NEAR_OTHER: its IoU with a box of another class, or with a crowd, is at least NEAR.
    - FALSE_POSITIVE: none of these.

    A ground-truth box is IGNORED if it is a crowd, CORRECT if a detection of its class matches it, WRONG_CLASS if one
    of another class does, MISLOCALIZED if it is the nearest box of a mislocalized detection, else MISSED.
    """

    kind: np.ndarray  # (D,) int64
    object: np.ndarray  # (D,) int64, index of the box that the outcome is about, -1 for none
    iou: np.ndarray  # (D,) float64, with that box, 0 for none
    state: np.ndarray  # (G,) int64


def match(objects, detections, by_class=True):
    """Match DETECTION (D,) to OBJECT (G,) of the same class, or of any, at an IoU of SAME, as COCO does.

    Returns which detections are correct and which are ignored, (D,) bool each, and the index of the matched box, (D,)
    int64, -1 for none.
    """
    ignored, matched = np.zeros(len(detections), dtype=bool), np.full(len(detections), -1)
    num_classes = 1 + max(rows["category"].max(initial=0) for rows in (objects, detections))
    params = {"areaRng": [[-np.inf, np.inf]], "areaRngLbl": ["all"], "maxDets": [len(detections)], "useCats": by_class}
    evaluation = coco_eval(objects, detections, num_classes, iouThrs=[SAME], **params)
    for entry in filter(None, evaluation.evalImgs):
        rows = np.array(entry["dtIds"], dtype=np.int64) - 1
        matched[rows] = np.array(entry["dtMatches"], dtype=np.int64).reshape(-1) - 1
        ignored[rows] = np.array(entry["dtIgnore"], dtype=bool).reshape(-1)
    return (matched >= 0) & ~ignored, ignored, matched


def overlaps(objects, detections, least):
    """Find the pairs of DETECTION (D,) and OBJECT (G,), both by image, with an IoU of at least `least`.

    With a crowd the intersection is divided by the detection's area alone. Returns the indices of the N detections,
    increasing, and of the boxes, and the IoUs.
    """
    found = [(np.empty(0, int), np.empty(0, int), np.empty(0))]
    for image in np.intersect1d(objects["image"], detections["image"]):
        of_truth, of_found = image_slice(objects, image), image_slice(detections, image)
        crowd = objects["crowd"][of_truth].astype(int).tolist()
        iou = mask.iou(detections["box"][of_found], objects["box"][of_truth], crowd)
        d, g = np.nonzero(iou >= least)
        found.append((d + of_found.start, g + of_truth.start, iou[d, g]))
    return [np.concatenate(values) for values in zip(*found, strict=True)]


def outcomes_of(boxes):
    """Return the `Outcomes` of all detections in `Boxes`."""
    objects, detections = boxes
    correct, ignored, partner = match(objects, detections)
    kind = np.where(correct, CORRECT, np.where(ignored, IGNORED, FALSE_POSITIVE))
    state = np.where(objects["crowd"], IGNORED, MISSED)
    state[partner[correct]] = CORRECT

    # Across classes, best score first; within a class, the remaining pairs have no overlap of SAME.
    rest, free = np.flatnonzero(kind == FALSE_POSITIVE), np.flatnonzero(state == MISSED)
    rest = rest[np.lexsort((-detections["score"][rest], detections["image"][rest]))]
    confused, _, other = match(objects[free], detections[rest], by_class=False)
    rest, other = rest[confused], free[other[confused]]
    kind[rest], partner[rest], state[other] = WRONG_CLASS, other, WRONG_CLASS

    of_detection, of_object, overlap = overlaps(objects, detections, NEAR)
    crowd = objects["crowd"][of_object]
    same = detections["category"][of_detection] == objects["category"][of_object]
    undecided = kind[of_detection] == FALSE_POSITIVE
    rules = (
        (NEAR_OTHER, undecided),
        (MISLOCALIZED, undecided & same & ~crowd),
        (DUPLICATE_OTHER, undecided & ~same & ~crowd & (overlap >= SAME)),
        (DUPLICATE, undecided & same & ~crowd & (overlap >= SAME)),
    )
    # A later rule overrides an earlier one; of the pairs of a rule, the one with the highest IoU is written last.
    order = np.argsort(overlap, kind="stable")
    for label, holds in rules:
        pairs = order[holds[order]]
        kind[of_detection[pairs]], partner[of_detection[pairs]] = label, of_object[pairs]
    near = partner[kind == MISLOCALIZED]
    state[near[state[near] == MISSED]] = MISLOCALIZED

    iou, theirs = np.zeros(len(detections)), partner[of_detection] == of_object
    iou[of_detection[theirs]] = overlap[theirs]
    return Outcomes(kind, partner, iou, state)


def confusion_matrix(boxes, outcomes, num_classes):
    """Count ground-truth boxes by their class (row) and the class of the detection that matches them (column).

    Returns (K + 1, K + 1) int64; the last row is for detections without a match, the last column for such ground truth.
    """
    objects, detections = boxes
    paired = np.isin(outcomes.kind, (CORRECT, WRONG_CLASS))
    alone = ~paired & (outcomes.kind != IGNORED)
    left = np.isin(outcomes.state, (MISLOCALIZED, MISSED))
    matrix = np.zeros((num_classes + 1, num_classes + 1), dtype=np.int64)
    np.add.at(matrix, (objects["category"][outcomes.object[paired]], detections["category"][paired]), 1)
    np.add.at(matrix, (num_classes, detections["category"][alone]), 1)
    np.add.at(matrix, (objects["category"][left], num_classes), 1)
    return matrix
