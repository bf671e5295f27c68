"""Everything that a report says about the detections in a dataset, as arrays."""

import contextlib
import io
from typing import NamedTuple

import numpy as np

from ..evaluation.coco import evaluate_boxes, ground_truth_of, run_coco_eval
from .boxes import Boxes, Dataset, to_arrays
from .outcomes import Outcomes, confusion_matrix, match, outcomes_of
from .thresholds import SCORES, Sweep, best_scores, sweep

FIGURES = ("AP", "AP50", "AP75", "APs", "APm", "APl")


class Analysis(NamedTuple):
    """Of a dataset with K classes. APs are COCO's, from 0 to 1, NaN without ground truth.

    dataset: `Dataset`.
    figures: dict from AP, AP50, ... to its value.
    recalls: (R,) recalls of the precisions.
    precision: (K, R) at an IoU of 0.5.
    ap, ap50: (K,).
    size_counts: number of small, medium and large ground-truth boxes.
    sweep: `Sweep` over the score.
    thresholds: (K,) indices into its scores, with the best F1.
    overall: index of the best F1 of all classes together.
    boxes: `Boxes`, with the detections above the thresholds.
    outcomes: `Outcomes` of these.
    matrix: (K + 1, K + 1), see `confusion_matrix`.
    tide: dict from Cls, Loc, Both, Dupe, Bkg and Miss to the AP50 that errors of this kind cost (Bolya et al. 2020);
        None where hotcoco does not compute it.
    calibration: dict with `ece` and `bins` of the score; None likewise.
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
    outcomes: Outcomes
    matrix: np.ndarray
    tide: dict | None
    calibration: dict | None


def analyze(dataset, results):
    """The `Analysis` of a `Dataset` and a list of results in COCO's format."""
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = evaluate_boxes(dataset.coco, results)
    precision = evaluation.eval["precision"][:, :, :, :, -1]  # (T, R, K, A)
    precision = np.where(precision < 0, np.nan, precision)
    params, num_classes = evaluation.params, len(dataset.classes)
    boxes = to_arrays(dataset, results)
    correct, ignored, _ = match(*boxes)
    swept = sweep(boxes, correct, ignored, num_classes)
    thresholds, overall = best_scores(swept)
    enough = boxes.detections["score"] >= SCORES[thresholds][boxes.detections["category"]]
    kept = Boxes(boxes.objects, boxes.detections[enough])
    outcomes = outcomes_of(kept)
    areas = boxes.objects["area"][~boxes.objects["crowd"]]
    tide, calibration = tide_and_calibration(dataset.coco, results)
    return Analysis(
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
        outcomes=outcomes,
        matrix=confusion_matrix(kept, outcomes, num_classes),
        tide=tide,
        calibration=calibration,
    )


def tide_and_calibration(coco, results):
    """See `Analysis`; None where there is nothing to compare, or a score is no probability."""
    evaluation = run_coco_eval(ground_truth_of(coco), results)
    # pycocotools has none of the two.
    if not hasattr(evaluation, "tide_errors") or not results or not coco.dataset["annotations"]:
        return None, None
    probabilities = all(0 <= result["score"] <= 1 for result in results)
    return evaluation.tide_errors()["delta_ap"], evaluation.calibration() if probabilities else None
