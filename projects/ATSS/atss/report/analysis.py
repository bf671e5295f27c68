"""Everything that a report shows about the detections in a dataset, as arrays."""

import contextlib
import io
from typing import NamedTuple

import numpy as np

from ..evaluation.coco import summarize
from .boxes import Boxes, Dataset, coco_eval
from .outcomes import Outcomes, confusion_matrix, match, outcomes_of
from .thresholds import SCORES, Sweep, best_scores, sweep

METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl")


class Analysis(NamedTuple):
    """Results for a dataset with K classes. APs are COCO's, from 0 to 1, NaN without ground truth."""

    dataset: Dataset
    metrics: dict  # from AP, AP50, ... to its value
    recalls: np.ndarray  # (R,), of `precision`
    precision: np.ndarray  # (K, R), at an IoU of 0.5
    ap: np.ndarray  # (K,)
    ap50: np.ndarray  # (K,)
    size_counts: list  # number of small, medium and large ground-truth boxes
    num_detections: int  # of any score
    sweep: Sweep  # over the score threshold
    thresholds: np.ndarray  # (K,) indices into its scores, with the best F1
    overall: int  # index of the best F1 of all classes together
    boxes: Boxes  # with the detections above the thresholds
    outcomes: Outcomes  # of these
    matrix: np.ndarray  # (K + 1, K + 1), see `confusion_matrix`
    # dict from Cls, Loc, Both, Dupe, Bkg and Miss to the AP50 that errors of this kind cost (TIDE, Bolya et al. 2020),
    # and dict with `ece` and `bins` of the score. None where hotcoco is missing, there is no ground truth or no
    # detection; no calibration where a score is not a probability.
    tide: dict | None
    calibration: dict | None


def analyze(dataset, detections):
    """Return the `Analysis` of a `Dataset` and DETECTION (D,)."""
    objects, num_classes = dataset.objects, len(dataset.classes)
    evaluation = coco_eval(objects, detections, num_classes)
    tide = calibration = None
    if hasattr(evaluation, "tide_errors") and len(objects) and len(detections):  # pycocotools has neither
        tide = evaluation.tide_errors()["delta_ap"]
        if ((detections["score"] >= 0) & (detections["score"] <= 1)).all():
            calibration = evaluation.calibration()
    with contextlib.redirect_stdout(io.StringIO()):
        summary = summarize(evaluation)
    precision = summary.eval["precision"][:, :, :, :, -1]  # (T, R, K, A)
    precision = np.where(precision < 0, np.nan, precision)
    correct, ignored, _ = match(objects, detections)
    swept = sweep(Boxes(objects, detections), correct, ignored, num_classes)
    thresholds, overall = best_scores(swept)
    above = detections["score"] >= SCORES[thresholds][detections["category"]]
    boxes = Boxes(objects, detections[above])
    outcomes = outcomes_of(boxes)
    areas = objects["area"][~objects["crowd"]]
    return Analysis(
        dataset=dataset,
        metrics={name: value if value >= 0 else np.nan for name, value in zip(METRICS, summary.stats, strict=False)},
        recalls=summary.params.recThrs,
        precision=precision[0, :, :, 0].T,
        ap=precision[:, :, :, 0].mean(axis=(0, 1)),
        ap50=precision[0, :, :, 0].mean(axis=0),
        size_counts=[int(((areas >= low) & (areas <= high)).sum()) for low, high in summary.params.areaRng[1:]],
        num_detections=len(detections),
        sweep=swept,
        thresholds=thresholds,
        overall=overall,
        boxes=boxes,
        outcomes=outcomes,
        matrix=confusion_matrix(boxes, outcomes, num_classes),
        tide=tide,
        calibration=calibration,
    )
