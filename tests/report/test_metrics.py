"""metrics.json as Detectron2 writes it, and as interrupted and repeated runs leave it."""

import math

import numpy as np
import pytest

from atss.report.metrics import count_not_finite, curve, read_metrics, smooth, training_seconds
from tests.report.runs import as_text, evaluated, log


@pytest.fixture
def read(tmp_path):
    def write_and_read(*lines):
        (tmp_path / "metrics.json").write_bytes("\n".join(map(as_text, lines)).encode(errors="surrogateescape"))
        return read_metrics(tmp_path / "metrics.json")

    return write_and_read


def iterations(records):
    return [record["iteration"] for record in records]


def test_lines_in_order(read):
    records, broken = read(*log(3))

    assert iterations(records) == [19, 39, 59] and broken == 0
    assert curve(records, "total_loss").iterations.tolist() == [20, 40, 60]
    assert curve(records, "total_loss").values == pytest.approx([3.0, 2.9, 2.8])


def test_a_missing_file_has_no_lines(tmp_path):
    assert read_metrics(tmp_path / "metrics.json") == ([], 0)


def test_broken_lines_are_counted(read):
    bad = ["[]", '{"total_loss": 1}', *('{"iteration": ' + x + "}" for x in ('"19"', "NaN", "1e300", "9" * 400))]

    records, broken = read('{"iteration": 19, "total_l', *log(2), *bad, "", "invalid UTF-8: \udcff\udcfe", *log(1, 40))

    assert iterations(records) == [19, 39, 59] and broken == 8


def test_a_resumed_run_replaces_lines_after_its_checkpoint(read):
    first = [*log(3), evaluated(60, 10.0), *log(2, start=60), evaluated(100, 20.0)]
    second = [*log(2, start=60, lr=0.5), evaluated(100, 30.0)]

    records, _ = read(*first, *second)

    assert curve(records, "total_loss").iterations.tolist() == [20, 40, 60, 80, 100]
    assert curve(records, "lr").values.tolist() == [0.01] * 3 + [0.5] * 2
    assert curve(records, "bbox/AP").values.tolist() == [10.0, 30.0]


def test_a_run_that_starts_again_replaces_all_lines(read):
    records, _ = read(*log(5), evaluated(100, 20.0), *log(2, lr=0.5))

    assert iterations(records) == [19, 39] and not len(curve(records, "bbox/AP").values)


@pytest.mark.parametrize(
    "lines, expected",
    [([*log(5), evaluated(39, 10.0), evaluated(100, 20.0)], [40, 100]), ([evaluated(0, 10.0)], [1])],
    ids=["after training", "without training"],
)
def test_the_last_evaluation_is_at_the_number_of_iterations(read, lines, expected):
    """Detectron2 writes it as iteration 100, and the last training line as 99."""
    assert curve(read(*lines)[0], "bbox/AP").iterations.tolist() == expected


@pytest.mark.parametrize("strange", [math.nan, math.inf, "text", None, True, [1]])
def test_values_that_are_not_finite_numbers_are_omitted(read, strange):
    lines = log(3)
    lines[1]["total_loss"] = strange

    records, broken = read(*lines)

    assert curve(records, "total_loss").iterations.tolist() == [20, 60] and broken == 0
    is_number = isinstance(strange, float)
    assert count_not_finite(records, "total_loss") == (int(is_number), 3 if is_number else 2)


def test_smoothing_is_a_moving_mean():
    values = np.random.default_rng(0).normal(size=30)
    for width in (1, 3, 7):
        half = width // 2
        expected = [values[max(0, i - half) : i + half + 1].mean() for i in range(30)]
        assert smooth(values, width) == pytest.approx(expected)
    assert smooth(np.array([1.0, 2.0]), 5) == pytest.approx([1.0, 2.0])


def test_training_time_covers_all_iterations():
    records = [{"iteration": 19, "time": 0.5}, {"iteration": 39, "time": 1.0}, {"iteration": 49, "time": 0.1}]

    assert training_seconds(records) == pytest.approx(20 * 0.5 + 20 * 1.0 + 10 * 0.1)
    assert training_seconds([]) == 0
