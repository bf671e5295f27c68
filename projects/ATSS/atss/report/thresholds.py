"""Precision, recall and F1 at every score threshold, and the best threshold of each class."""

from typing import NamedTuple

import numpy as np

SCORES = np.arange(1001) / 1000  # the thresholds that are tried
DEFAULT_SCORE = 0.5  # where no threshold is better than another: no detection is correct


class Sweep(NamedTuple):
    """Counts of K classes at S = 1001 score thresholds; detections count from the threshold on."""

    correct: np.ndarray  # (K, S) int64, correct detections
    counted: np.ndarray  # (K, S) int64, all detections
    totals: np.ndarray  # (K,) int64, ground-truth boxes

    def together(self):
        """Return the `Sweep` of all classes as one."""
        return Sweep(*(counts.sum(axis=0, keepdims=True) for counts in self))

    def precision(self):
        """Return (K, S), NaN where no detection counts."""
        return ratio(self.correct, self.counted)

    def recall(self):
        """Return (K, S), NaN for classes without ground truth."""
        return ratio(self.correct, self.totals[:, None])

    def f1(self):
        """Return (K, S), NaN for classes without ground truth."""
        f1 = ratio(2 * self.correct, self.counted + self.totals[:, None])
        f1[self.totals == 0] = np.nan
        return f1


def ratio(part, whole):
    part, whole = np.broadcast_arrays(part, whole)
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)


def sweep(boxes, correct, ignored, num_classes):
    """Return the `Sweep` of `Boxes`, given which detections are correct and which ignored, (D,) bool each."""
    objects, detections = boxes
    counts = np.zeros((2, num_classes, len(SCORES)), dtype=np.int64)
    for count, keep in zip(counts, (correct, ~ignored), strict=True):
        kept = detections[keep & (detections["score"] >= 0)]
        np.add.at(count, (kept["category"], np.searchsorted(SCORES, kept["score"], side="right") - 1), 1)
    # From each threshold on.
    correct, counted = counts[:, :, ::-1].cumsum(axis=2)[:, :, ::-1]
    totals = np.bincount(objects["category"][~objects["crowd"]], minlength=num_classes)
    return Sweep(correct, counted, totals)


def best_scores(sweep):
    """Find the threshold with the best F1 for each class, and for all classes together.

    Of equally good thresholds, take the middle one. A class without ground truth or correct detections gets the
    threshold of all classes.

    Returns:
        (K,) indices into SCORES, and the index for all classes together.
    """
    overall = best_index(sweep.together().f1()[0])
    if overall is None:
        overall = int(np.searchsorted(SCORES, DEFAULT_SCORE))
    indices = [best_index(f1) for f1 in sweep.f1()]
    return np.array([overall if index is None else index for index in indices]), overall


def best_index(f1):
    """Return the middle of the first run of maxima in F1 values (S,); None where all are 0 or NaN."""
    highest = np.nanmax(f1, initial=0)
    if highest == 0:
        return None
    best = np.append(f1 == highest, False)
    first = best.argmax()
    length = (~best[first:]).argmax()
    return int(first + (length - 1) // 2)
