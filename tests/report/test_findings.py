"""Figures of a dataset, against small known cases."""

import numpy as np
import pytest

from atss.evaluation.coco import evaluate_boxes
from atss.report.boxes import read_content
from atss.report.findings import find
from atss.report.mistakes import FALSE_FIND, RIGHT
from atss.report.thresholds import SCORES
from tests.report.runs import annotation, content_of, random_boxes, result

BOX, OTHER, FAR = [5, 5, 20, 20], [50, 5, 20, 20], [80, 60, 20, 20]


def found(annotations, results, classes=("a", "b")):
    return find(read_content("made", content_of(1, classes, annotations), ""), results)


def test_precision_over_recall():
    """Right, wrong, right: at an IoU of 0.5 precision 1 up to half of the recall, then 2/3; from 0.55 nothing."""
    annotations = [annotation(1, 10, BOX), annotation(1, 10, OTHER)]
    results = [
        result(1, 10, [*BOX[:3], 10.4], 0.9), result(1, 10, FAR, 0.8), result(1, 10, [*OTHER[:3], 10.4], 0.7)
    ]  # fmt: skip

    findings = found(annotations, results)

    expected = np.where(findings.recalls <= 0.5, 1, 2 / 3)
    assert findings.precision[0] == pytest.approx(expected) and np.isnan(findings.precision[1]).all()
    assert [findings.ap50[0], findings.ap[0]] == pytest.approx([expected.mean(), expected.mean() / 10])
    assert findings.figures["AP50"] == pytest.approx(expected.mean()) and np.isnan(findings.figures["APl"])
    assert findings.size_counts == [2, 0, 0]


def test_the_figures_are_those_of_the_evaluation():
    content, results = random_boxes(0)
    dataset = read_content("made", content, "")

    findings = find(dataset, results)

    stats = evaluate_boxes(dataset.coco, results).stats[:6]
    assert list(findings.figures.values()) == [s if s >= 0 else pytest.approx(np.nan, nan_ok=True) for s in stats]
    assert np.nanmean(findings.ap) == pytest.approx(findings.figures["AP"])


def test_only_detections_from_their_threshold_on_are_judged():
    annotations = [annotation(1, 10, BOX), annotation(1, 20, OTHER)]
    results = [result(1, 10, BOX, 0.9), result(1, 10, FAR, 0.3), result(1, 20, OTHER, 0.2), result(1, 20, FAR, 0.1)]

    findings = found(annotations, results)

    assert SCORES[findings.thresholds] == pytest.approx([0.6, 0.15])
    assert findings.boxes.detections["score"].tolist() == [0.9, 0.2]
    assert findings.verdict.kind.tolist() == [RIGHT, RIGHT] and findings.matrix.tolist() == [
        [1, 0, 0],
        [0, 1, 0],
        [0] * 3,
    ]


def test_without_detections_everything_is_missed():
    findings = found([annotation(1, 10, BOX)], [])

    assert findings.figures["AP"] == 0 and findings.matrix[0].tolist() == [0, 0, 1]


def test_without_objects_there_are_no_figures():
    findings = found([], [result(1, 10, BOX, 0.9)])

    assert np.isnan(list(findings.figures.values())).all() and np.isnan(findings.ap).all()
    assert findings.verdict.kind.tolist() == [FALSE_FIND]


def test_crowds_are_no_objects():
    findings = found([annotation(1, 10, BOX, crowd=1)], [result(1, 10, BOX, 0.9)])

    assert np.isnan(findings.figures["AP"]) and findings.matrix.sum() == 0 and findings.size_counts == [0, 0, 0]
