"""Precision, recall and F1 over the score from which detections count, and the best score for every class."""

from typing import NamedTuple

import numpy as np

# Scores that are tried.
SCORES = np.arange(1001) / 1000
# Where no score is better than another: no detection is right.
NO_SCORE = 0.5


class Sweep(NamedTuple):
    """What holds where detections with a score of at least each of S = 1001 scores count, all of shape (K, S).

    found: int64, number of detections that are right. counted: int64, of all.
    totals: (K,) int64, number of objects.
    """

    found: np.ndarray
    counted: np.ndarray
    totals: np.ndarray

    def together(self):
        """Of all classes as if they were one."""
        return Sweep(*(x.sum(axis=0, keepdims=True) for x in self))

    def precision(self):
        """(K, S), NaN where nothing counts."""
        return ratio(self.found, self.counted)

    def recall(self):
        """(K, S), NaN where there are no objects."""
        return ratio(self.found, self.totals[:, None])

    def f1(self):
        """(K, S), NaN where there are no objects."""
        f1 = ratio(2 * self.found, self.counted + self.totals[:, None])
        f1[self.totals == 0] = np.nan
        return f1


def ratio(part, whole):
    part, whole = np.broadcast_arrays(part, whole)
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)


def sweep(boxes, right, ignored, num_classes):
    """The `Sweep` of `Boxes` of which detections are right, and ignored, (D,) bool each."""
    objects, detections = boxes
    count = np.zeros((2, num_classes, len(SCORES)), dtype=np.int64)
    for rows, keep in zip(count, (right, ~ignored), strict=True):
        score, category = detections["score"][keep], detections["category"][keep]
        reached = np.searchsorted(SCORES, score, side="right") - 1
        inside = reached >= 0
        np.add.at(rows, (category[inside], reached[inside]), 1)
    found, counted = count[:, :, ::-1].cumsum(axis=2)[:, :, ::-1]
    totals = np.bincount(objects["category"][~objects["crowd"]], minlength=num_classes)
    return Sweep(found, counted, totals)


def best_scores(sweep):
    """The score of the best F1 of every class, and that of all classes together.

    Of scores that are as good it is the one in the middle. A class without objects, or of which no detection is right,
    has that of all classes.

    Returns:
        (K,) places in SCORES, and the place for all.
    """
    overall = best_place(sweep.together().f1()[0])
    if overall is None:
        overall = int(np.searchsorted(SCORES, NO_SCORE))
    places = [best_place(f1) for f1 in sweep.f1()]
    return np.array([overall if place is None else place for place in places]), overall


def best_place(f1):
    """Middle of the first run of the highest values of an F1 curve (S,), None where it is 0 or NaN all along."""
    if not np.nanmax(f1, initial=0) > 0:
        return None
    best = f1 == np.nanmax(f1)
    first = int(best.argmax())
    rest = best[first:]
    length = len(rest) if rest.all() else int((~rest).argmax())
    return first + (length - 1) // 2
