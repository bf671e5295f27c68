"""Precision, recall and F1 at every score threshold, against counting detections one by one."""

import numpy as np
import pytest

from atss.report.outcomes import match
from atss.report.thresholds import SCORES, best_scores, sweep
from tests.report.runs import arrays, made, random_boxes

BOX, FAR = (10, 10, 20, 20), (70, 60, 20, 20)


def swept(boxes, num_classes):
    right, ignored, _ = match(boxes.objects, boxes.detections)
    return sweep(boxes, right, ignored, num_classes), right, ignored


@pytest.mark.parametrize("seed", range(5))
def test_counts_equal_those_at_each_threshold_and_the_best_has_the_highest_f1(seed):
    boxes = arrays(*random_boxes(seed))
    found, right, ignored = swept(boxes, 4)
    detections, objects = boxes.detections, boxes.objects
    assert right.sum() > 5 and ignored.any()

    for k in range(4):
        of_class = detections["category"] == k
        total = int(((objects["category"] == k) & ~objects["crowd"]).sum())
        assert found.totals[k] == total
        for place in range(0, 1001, 50):
            enough = of_class & (detections["score"] >= SCORES[place])
            true, all_ = int((enough & right).sum()), int((enough & ~ignored).sum())
            assert (found.correct[k, place], found.counted[k, place]) == (true, all_)
            precision, recall, f1 = (rate[k, place] for rate in found.rates())
            assert precision == pytest.approx(true / all_ if all_ else np.nan, nan_ok=True)
            assert recall == pytest.approx(true / total if total else np.nan, nan_ok=True)
            if total and true:
                assert f1 == pytest.approx(2 * precision * recall / (precision + recall))

    f1, best = found.rates()[2][:3], best_scores(found)[0][:3]
    assert f1[range(3), best].tolist() == f1.max(axis=1).tolist() and f1.max(axis=1).min() > 0


def test_of_equally_good_thresholds_the_middle_one_is_taken():
    """A correct detection of 0.8 and a wrong one of 0.3: every threshold above 0.3 and up to 0.8 is perfect."""
    found, _, _ = swept(made([(0, BOX)], [(0, BOX, 0.8), (0, FAR, 0.3)]), 3)

    (place, *_), overall = best_scores(found)

    assert SCORES[place] == SCORES[overall] == pytest.approx(0.55)
    assert [rate[0, place] for rate in found.rates()] == [1, 1, 1]


@pytest.mark.parametrize("score", [0.3, 0.3004, 0.3009])
def test_a_detection_counts_up_to_its_own_score(score):
    found, _, _ = swept(made([(0, BOX)], [(0, BOX, score)]), 3)

    assert found.counted[0, [299, 300, 301]].tolist() == [1, 1, 0]


def test_classes_without_objects_or_correct_detections_get_the_common_threshold():
    detections = [(0, BOX, 0.8), (0, FAR, 0.6), (1, BOX, 0.9), (2, BOX, 0.1)]
    found, _, _ = swept(made([(0, BOX), (1, FAR)], detections), 3)

    places, overall = best_scores(found)

    # Of all classes together, one detection of two is correct above 0.6 and up to 0.8, and fewer elsewhere.
    assert SCORES[overall] == pytest.approx(0.7) and places.tolist()[1:] == [overall, overall]
    assert np.isnan(found.rates()[2][2]).all() and found.totals.tolist() == [1, 1, 0]


@pytest.mark.parametrize(
    "objects, detections", [([(0, BOX)], [(0, FAR, 0.9)]), ([], []), ([(0, BOX)], []), ([], [(0, BOX, 0.9)])]
)
def test_without_correct_detections_the_threshold_is_one_half(objects, detections):
    places, overall = best_scores(swept(made(objects, detections), 3)[0])

    assert SCORES[[*places, overall]].tolist() == [0.5] * 4
