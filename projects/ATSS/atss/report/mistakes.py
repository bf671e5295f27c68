"""What becomes of every detection and of every object: which are right, and what kind of mistake the others are."""

from typing import NamedTuple

import numpy as np
from pycocotools import mask

from ..evaluation.coco import run_coco_eval

# IoU from which a detection is an object's, and below which it has nothing to do with it.
SAME, NEAR = 0.5, 0.1

# Of a detection.
RIGHT, CONFUSED, DUPLICATE, SECOND_CLASS, BADLY_PLACED, BESIDE, FALSE_FIND, IGNORED = range(8)
# Of an object; RIGHT, CONFUSED, BADLY_PLACED and IGNORED (a crowd) are as above.
MISSED = 8


class Verdict(NamedTuple):
    """What becomes of D detections and G objects.

    kind: (D,) int64. RIGHT: an object of its class has it. CONFUSED: one of another class, which it overlaps by SAME,
        has it, as no detection is right there. DUPLICATE: it overlaps an object of its class by SAME that has a better
        detection. SECOND_CLASS: so it does with one of another class. BADLY_PLACED: it overlaps one of its class by
        NEAR. BESIDE: one of another class, or a crowd. FALSE_FIND: nothing. IGNORED: it lies in a crowd of its class.
    object: (D,) int64, the object concerned, -1 for none.
    iou: (D,) with that object, 0 for none.
    state: (G,) int64. RIGHT: a detection of its class has it; else CONFUSED: one of another class; else BADLY_PLACED:
        such a detection lies nearest to it; else MISSED. IGNORED: a crowd.
    """

    kind: np.ndarray
    object: np.ndarray
    iou: np.ndarray
    state: np.ndarray


def match(objects, detections, by_class=True):
    """Match detections to ground truth at an IoU of SAME, as COCO does.

    Args:
        objects, detections: OBJECT (G,) and DETECTION (D,).
        by_class: False to match across classes.

    Returns:
        right, ignored: (D,) bool. object: (D,) int64, -1 for none.
    """
    ignored, object_ = np.zeros(len(detections), dtype=bool), np.full(len(detections), -1)
    if not len(detections):
        return ignored, ignored, object_
    images = np.union1d(objects["image"], detections["image"]).tolist()
    categories = np.union1d(objects["category"], detections["category"]).tolist()
    fields = (objects[name].tolist() for name in ("image", "category", "box", "area", "crowd"))
    ground_truth = {
        "images": [{"id": image} for image in images],
        "categories": [{"id": category, "name": str(category)} for category in categories],
        "annotations": [
            {"id": i, "image_id": image, "category_id": category, "bbox": box, "area": area, "iscrowd": int(crowd)}
            for i, (image, category, box, area, crowd) in enumerate(zip(*fields, strict=True), 1)
        ],
    }
    columns = (detections[name] for name in ("image", "box", "score", "category"))
    evaluation = run_coco_eval(
        ground_truth, np.column_stack(list(columns)), iouThrs=[SAME], areaRng=[[-np.inf, np.inf]], areaRngLbl=["all"],
        maxDets=[len(detections)], useCats=by_class,
    )  # fmt: skip
    for entry in filter(None, evaluation.evalImgs):
        rows = np.array(entry["dtIds"], dtype=np.int64) - 1
        object_[rows] = np.array(entry["dtMatches"], dtype=np.int64).reshape(-1) - 1
        ignored[rows] = np.array(entry["dtIgnore"], dtype=bool).reshape(-1)
    return (object_ >= 0) & ~ignored, ignored, object_


def overlaps(objects, detections, least):
    """Pairs of an object and a detection of an image with an IoU of at least `least`.

    With a crowd the intersection is divided by the detection's area alone.

    Args:
        objects, detections: OBJECT (G,) and DETECTION (D,), by image.

    Returns:
        detection (N,), increasing; object (N,); IoU (N,).
    """
    found = []
    for image in np.intersect1d(objects["image"], detections["image"]):
        theirs, ours = (slice(*np.searchsorted(x["image"], [image, image + 1])) for x in (objects, detections))
        iou = mask.iou(detections["box"][ours], objects["box"][theirs], objects["crowd"][theirs].astype(int).tolist())
        d, g = np.nonzero(iou >= least)
        found.append((d + ours.start, g + theirs.start, iou[d, g]))
    if not found:
        return np.empty(0, int), np.empty(0, int), np.empty(0)
    return tuple(map(np.concatenate, zip(*found, strict=True)))


def judge(boxes, num_classes):
    """The `Verdict` on `Boxes`, of which all detections count."""
    objects, detections = boxes
    right, ignored, partner = match(objects, detections)
    kind = np.where(right, RIGHT, np.where(ignored, IGNORED, FALSE_FIND))
    state = np.where(objects["crowd"], IGNORED, MISSED)
    state[partner[right]] = RIGHT

    # Best score first, of all classes; what is left of a class has no overlap of SAME with what is left of it.
    rest, free = np.flatnonzero(kind == FALSE_FIND), np.flatnonzero(state == MISSED)
    rest = rest[np.lexsort((-detections["score"][rest], detections["image"][rest]))]
    confused, _, other = match(objects[free], detections[rest], by_class=False)
    rest, other = rest[confused], free[other[confused]]
    kind[rest], partner[rest], state[other] = CONFUSED, other, CONFUSED

    of_detection, of_object, overlap = overlaps(objects, detections, NEAR)
    crowd = objects["crowd"][of_object]
    same = detections["category"][of_detection] == objects["category"][of_object]
    open_ = kind[of_detection] == FALSE_FIND
    rules = (
        (BESIDE, open_),
        (BADLY_PLACED, open_ & same & ~crowd),
        (SECOND_CLASS, open_ & ~same & ~crowd & (overlap >= SAME)),
        (DUPLICATE, open_ & same & ~crowd & (overlap >= SAME)),
    )
    # A later rule goes over an earlier one; of the pairs of a rule, the one that overlaps most is written last.
    order = np.argsort(overlap, kind="stable")
    for label, holds in rules:
        pairs = order[holds[order]]
        kind[of_detection[pairs]], partner[of_detection[pairs]] = label, of_object[pairs]
    near = partner[kind == BADLY_PLACED]
    state[near[state[near] == MISSED]] = BADLY_PLACED

    iou, theirs = np.zeros(len(detections)), partner[of_detection] == of_object
    iou[of_detection[theirs]] = overlap[theirs]
    return Verdict(kind, partner, iou, state)


def confusion_matrix(boxes, verdict, num_classes):
    """Counts of objects by their class and that of the detection which has them.

    Returns:
        (K + 1, K + 1) int64. Row: class of the object, the last for detections that have none. Column: class of the
        detection, the last for objects that none has.
    """
    objects, detections = boxes
    paired = np.isin(verdict.kind, (RIGHT, CONFUSED))
    alone = ~paired & (verdict.kind != IGNORED)
    left = np.isin(verdict.state, (BADLY_PLACED, MISSED))
    matrix = np.zeros((num_classes + 1, num_classes + 1), dtype=np.int64)
    np.add.at(matrix, (objects["category"][verdict.object[paired]], detections["category"][paired]), 1)
    np.add.at(matrix, (num_classes, detections["category"][alone]), 1)
    np.add.at(matrix, (objects["category"][left], num_classes), 1)
    return matrix
