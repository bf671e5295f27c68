"""Metrics of a dataset in small known cases."""

import numpy as np
import pytest

from atss.evaluation import coco
from atss.evaluation.coco import evaluate_boxes, index_coco
from atss.report.analysis import analyze
from atss.report.boxes import read_content, read_results
from atss.report.outcomes import CORRECT, FALSE_POSITIVE, IGNORED
from atss.report.thresholds import SCORES
from tests.report.runs import annotation, content_of, random_boxes, result

BOX, OTHER, FAR = [5, 5, 20, 20], [50, 5, 20, 20], [80, 60, 20, 20]


def analysis_of_content(content, results):
    dataset = read_content("made", content, "")
    return analyze(dataset, read_results(results, dataset))


def analysis_of(annotations, results):
    return analysis_of_content(content_of(1, ["a", "b"], annotations), results)


def test_precision_over_recall():
    """Correct, wrong, correct: at an IoU of 0.5 precision 1 up to half of the recall, then 2/3; from 0.55 nothing."""
    annotations = [annotation(1, 10, BOX), annotation(1, 10, OTHER)]
    results = [
        result(1, 10, [*BOX[:3], 10.4], 0.9), result(1, 10, FAR, 0.8), result(1, 10, [*OTHER[:3], 10.4], 0.7)
    ]  # fmt: skip

    analysis = analysis_of(annotations, results)

    expected = np.where(analysis.recalls <= 0.5, 1, 2 / 3)
    assert analysis.precision[0] == pytest.approx(expected) and np.isnan(analysis.precision[1]).all()
    assert [analysis.ap50[0], analysis.ap[0]] == pytest.approx([expected.mean(), expected.mean() / 10])
    assert analysis.metrics["AP50"] == pytest.approx(expected.mean()) and np.isnan(analysis.metrics["APl"])
    assert analysis.size_counts == [2, 0, 0]


def test_metrics_equal_those_of_the_evaluation():
    content, results = random_boxes(0)

    analysis = analysis_of_content(content, results)

    stats = evaluate_boxes(index_coco(content), results).stats[:6]
    assert list(analysis.metrics.values()) == [s if s >= 0 else pytest.approx(np.nan, nan_ok=True) for s in stats]
    assert np.nanmean(analysis.ap) == pytest.approx(analysis.metrics["AP"])


def test_outcomes_are_of_detections_above_their_threshold():
    annotations = [annotation(1, 10, BOX), annotation(1, 20, OTHER)]
    results = [result(1, 10, BOX, 0.9), result(1, 10, FAR, 0.3), result(1, 20, OTHER, 0.2), result(1, 20, FAR, 0.1)]

    analysis = analysis_of(annotations, results)

    assert SCORES[analysis.thresholds] == pytest.approx([0.6, 0.15])
    assert analysis.boxes.detections["score"].tolist() == [0.9, 0.2]
    assert analysis.outcomes.kind.tolist() == [CORRECT, CORRECT]
    assert analysis.matrix.tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 0]]


def test_without_detections_everything_is_missed():
    analysis = analysis_of([annotation(1, 10, BOX)], [])

    assert analysis.metrics["AP"] == 0 and analysis.matrix[0].tolist() == [0, 0, 1]


@pytest.mark.parametrize("annotations, kind", [([], FALSE_POSITIVE), ([annotation(1, 10, BOX, crowd=1)], IGNORED)])
def test_without_objects_metrics_are_nan(annotations, kind):
    """Crowds are not objects."""
    analysis = analysis_of(annotations, [result(1, 10, BOX, 0.9)])

    assert np.isnan(list(analysis.metrics.values())).all() and np.isnan(analysis.ap).all()
    assert analysis.outcomes.kind.tolist() == [kind] and analysis.size_counts == [0, 0, 0]
    assert analysis.matrix.sum() == (kind == FALSE_POSITIVE)


def test_tide():
    """One of two objects of class a is detected. Correcting the class of the other's detection gives an AP50 of 1."""
    annotations = [annotation(1, 10, BOX), annotation(1, 10, OTHER)]

    wrong_class = analysis_of(annotations, [result(1, 10, BOX, 0.9), result(1, 20, OTHER, 0.8)]).tide
    false_positive = analysis_of(annotations, [result(1, 10, BOX, 0.8), result(1, 10, FAR, 0.9)]).tide

    before = 51 / 101  # recall 0.5 at precision 1
    assert wrong_class["Cls"] == pytest.approx(1 - before) and wrong_class["Bkg"] == wrong_class["Loc"] == 0
    assert false_positive["Bkg"] == pytest.approx(before / 2) and false_positive["Cls"] == 0
    assert false_positive["Miss"] > 0


def test_calibration_compares_scores_with_precision():
    """Four detections with a score of 0.75, of which one is correct: an error of 0.5."""
    annotations = [annotation(1, 10, BOX)]
    results = [result(1, 10, BOX, 0.75), *[result(1, 10, FAR, 0.75)] * 3]

    calibration = analysis_of(annotations, results).calibration

    assert calibration["ece"] == pytest.approx(0.5)
    [filled] = [entry for entry in calibration["bins"] if entry["count"]]
    assert (filled["bin_lower"], filled["count"], filled["avg_accuracy"]) == (pytest.approx(0.7), 4, 0.25)


def test_negative_ids_change_nothing():
    content, results = random_boxes(0)
    before = analysis_of_content(content, results)
    for entry in [*content["annotations"], *results]:
        entry["image_id"] -= 1000
    for image in content["images"]:
        image["id"] -= 1000

    after = analysis_of_content(content, results)

    assert (after.metrics, after.tide, after.calibration) == (before.metrics, before.tide, before.calibration)


def test_without_hotcoco_only_tide_and_calibration_are_missing(monkeypatch):
    before = analysis_of_content(*random_boxes(0))
    monkeypatch.setattr(coco, "hotcoco", None)

    after = analysis_of_content(*random_boxes(0))

    assert after.tide is None and after.calibration is None
    assert after.metrics == before.metrics and np.array_equal(after.matrix, before.matrix)
    assert all(map(np.array_equal, after.outcomes, before.outcomes))
