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

    def rates(self):
        """Return precision, recall and F1, (K, S) each; NaN where no detection counts, or without ground truth."""
        totals = np.where(self.totals > 0, self.totals, np.nan)[:, None]
        with np.errstate(invalid="ignore"):
            return self.correct / self.counted, self.correct / totals, 2 * self.correct / (self.counted + totals)


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
    """Find the threshold with the best F1 for each class, (K,) indices into SCORES, and the index for all together.

    Of equally good thresholds, take the middle one. A class without ground truth or correct detections gets the
    threshold of all classes.
    """
    overall = best_index(sweep.together().rates()[2][0], int(np.searchsorted(SCORES, DEFAULT_SCORE)))
    return np.array([best_index(f1, overall) for f1 in sweep.rates()[2]]), overall


def best_index(f1, default):
    """Return the middle of the first run of maxima in F1 values (S,), the default where all are 0 or NaN."""
    highest = np.nanmax(f1, initial=0)
    if highest == 0:
        return default
    best = np.append(f1 == highest, False)
    first = best.argmax()
    length = (~best[first:]).argmax()
    return int(first + (length - 1) // 2)
