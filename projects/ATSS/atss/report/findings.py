"""Everything that a report says of the boxes found in a dataset, as arrays."""

import contextlib
import io
from typing import NamedTuple

import numpy as np

from ..evaluation.coco import evaluate_boxes
from .boxes import Boxes, Dataset, to_arrays
from .mistakes import Verdict, confusion_matrix, judge, match
from .thresholds import SCORES, Sweep, best_scores, sweep

FIGURES = ("AP", "AP50", "AP75", "APs", "APm", "APl")


class Findings(NamedTuple):
    """Of a dataset with K classes. APs are COCO's, from 0 to 1, NaN where there are no objects.

    dataset: `Dataset`.
    figures: dict from AP, AP50, ... to its value.
    recalls: (R,) recalls of the precisions.
    precision: (K, R) at an IoU of 0.5.
    ap, ap50: (K,).
    size_counts: number of small, medium and large objects.
    sweep: `Sweep` over the score.
    thresholds: (K,) places in its scores, of the best F1.
    overall: place of the best F1 of all classes together.
    boxes: `Boxes`, detections from the thresholds on.
    verdict: `Verdict` on these.
    matrix: (K + 1, K + 1), see `confusion_matrix`.
    """

    dataset: Dataset
    figures: dict
    recalls: np.ndarray
    precision: np.ndarray
    ap: np.ndarray
    ap50: np.ndarray
    size_counts: list
    sweep: Sweep
    thresholds: np.ndarray
    overall: int
    boxes: Boxes
    verdict: Verdict
    matrix: np.ndarray


def find(dataset, results):
    """The `Findings` of a `Dataset` and a list of results in COCO's format."""
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = evaluate_boxes(dataset.coco, results)
    precision = evaluation.eval["precision"][:, :, :, :, -1]  # (T, R, K, A)
    precision = np.where(precision < 0, np.nan, precision)
    params, num_classes = evaluation.params, len(dataset.classes)
    boxes = to_arrays(dataset, results)
    right, ignored, _ = match(boxes.objects, boxes.detections)
    swept = sweep(boxes, right, ignored, num_classes)
    thresholds, overall = best_scores(swept)
    enough = boxes.detections["score"] >= SCORES[thresholds][boxes.detections["category"]]
    kept = Boxes(boxes.objects, boxes.detections[enough])
    verdict = judge(kept, num_classes)
    areas = boxes.objects["area"][~boxes.objects["crowd"]]
    return Findings(
        dataset=dataset,
        figures={name: value if value >= 0 else np.nan for name, value in zip(FIGURES, evaluation.stats, strict=False)},
        recalls=params.recThrs,
        precision=precision[0, :, :, 0].T,
        ap=precision[:, :, :, 0].mean(axis=(0, 1)),
        ap50=precision[0, :, :, 0].mean(axis=0),
        size_counts=[int(((areas >= low) & (areas <= high)).sum()) for low, high in params.areaRng[1:]],
        sweep=swept,
        thresholds=thresholds,
        overall=overall,
        boxes=kept,
        verdict=verdict,
        matrix=confusion_matrix(kept, verdict, num_classes),
    )
