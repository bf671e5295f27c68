"""Charts: their labels, and small files that look the same in dark."""

import re

import numpy as np
import pytest
from matplotlib import rcParams

from atss.report import charts
from atss.report.metrics import Curve
from atss.report.theme import DARK, LIGHT, drawn, recolored, shortened

LOSS = Curve(np.arange(20, 2020, 20), np.linspace(3, 1, 100))
AT = Curve(np.array([500, 1000, 2000]), np.array([30.0, 35.0, 33.0]))
SCORES = np.linspace(0, 1, 11)
CHARTS = {
    "losses": (charts.losses, "box loss", LOSS, {"val": AT}),
    "few losses": (charts.losses, "box loss", Curve(*(x[:3] for x in LOSS)), {}),
    "validation alone": (charts.losses, "box loss", Curve(np.array([], int), np.array([])), {"val": AT, "test": AT}),
    "one line": (charts.losses, "box loss", Curve(*(x[:1] for x in LOSS)), {}),
    "learning rate": (charts.learning_rate, LOSS),
    "no learning": (charts.learning_rate, Curve(np.array([1]), np.array([0.0]))),
    "AP": (charts.average_precision, {"AP": AT, "AP50": AT}),
    "AP 0": (charts.average_precision, {"AP": Curve(np.array([1]), np.array([0.0]))}),
    "curves": (charts.curves_of_classes, SCORES, np.array([SCORES, SCORES**2]), ["a", "b"], np.array([0.5, 0.3]),
               ("recall", "precision"), np.array([3, 4])),
    "bars": (charts.class_bars, ["a", "b"], [40.0, 0.0], 40.0),
    "a bar": (charts.class_bars, ["a"], [0.0], 0.0),
    "sizes": (charts.size_bars, ["small", "medium", "large"], np.array([10.0, np.nan, 0.0])),
    "outcomes": (charts.outcomes, ["right", "false"], [1200, 0], [0, 1], "objects"),
    "nothing": (charts.outcomes, ["right", "false"], [0, 0], [0, 1], "objects"),
    "localization": (charts.localization, np.array([0.5, 0.7, 1.0])),
    "tide": (charts.tide, {"Cls": 0.1, "Loc": 0.02, "Both": 0, "Dupe": -1e-9, "Bkg": 0.3, "Miss": 0.2}),
    "calibration": (charts.calibration, [
        {"bin_lower": x / 2, "bin_upper": (x + 1) / 2, "avg_accuracy": 0.4, "count": x} for x in range(2)
    ]),
    "confusions": (charts.confusions, np.array([[3, 1, 0], [0, 0, 5], [2, 0, 0]]), ["a", "b"]),
    "a class": (charts.confusions, np.zeros((2, 2), int), ["a"]),
    "many classes": (charts.confusions, np.eye(81, dtype=int), [f"class {k}" for k in range(80)]),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", CHARTS)
def test_axes_have_labels_and_nothing_warns(name):
    figure, content, kind = drawn(LIGHT, *CHARTS[name])

    assert all(axes.get_xlabel() or axes.get_label() == "<colorbar>" for axes in figure.axes)
    assert all(axes.get_ylabel() for axes in figure.axes)
    assert content.startswith({"svg": b"<?xml", "png": b"\x89PNG"}[kind]) and 1000 < len(content) < 100_000


@pytest.mark.parametrize(
    "name", ["losses", "AP", "outcomes", "sizes", "bars", "localization", "tide", "calibration", "curves"]
)
def test_a_recoloured_chart_equals_that_of_the_other_theme(name):
    (_, light, _), (_, dark, _) = drawn(LIGHT, *CHARTS[name]), drawn(DARK, *CHARTS[name])

    def without_ids(svg):
        ids = dict.fromkeys(re.findall(r'(?<=id=")[^"]+', svg))
        return re.sub(r'(?<=id=")[^"]+|(?<=#)[mp][0-9a-f]{10}', lambda found: str(list(ids).index(found[0])), svg)

    light, dark, changed = (without_ids(svg.decode()) for svg in (light, dark, recolored(light, LIGHT, DARK)))
    assert changed == dark != light


def test_a_long_curve_keeps_minima_and_maxima():
    x, y = np.arange(4500), np.random.default_rng(0).normal(size=4500)

    some_x, some_y = charts.envelope(x, y)

    assert len(some_y) == 1000 and (np.diff(some_x) >= 0).all() and (y[some_x] == some_y).all()
    assert some_y.min() == y.min() and some_y.max() == y.max()
    for block in range(0, 4500, 9):
        assert {y[block : block + 9].min(), y[block : block + 9].max()} <= set(some_y)


def test_text_stays_text_and_numbers_keep_their_digits():
    _, content, _ = drawn(LIGHT, charts.class_bars, ["猫", "a <b> & c", "0.12345"], [1.0, 2.0, 3.0], 3.0)

    assert all(name in content.decode() for name in ("猫", "a &lt;b&gt; &amp; c", "0.12345"))


def test_classes_with_the_same_name_have_a_bar_each():
    (axes,) = drawn(LIGHT, charts.class_bars, ["cat", "cat"], [30.0, 20.0], 30.0)[0].axes

    assert [bar.get_width() for bar in axes.patches] == [30, 20] and len({bar.get_y() for bar in axes.patches}) == 2
    assert [label.get_text() for label in axes.get_yticklabels()] == ["cat", "cat"]


def test_with_many_classes_the_best_and_worst_are_named():
    rank = np.linspace(0.9, 0.1, 80)
    curves = np.repeat(rank[:, None], 11, axis=1)
    curves[3], rank[3] = np.nan, np.nan

    figure, *_ = drawn(LIGHT, charts.curves_of_classes, SCORES, curves, [f"c{k}" for k in range(80)], rank, ("x", "y"))

    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert [label.split()[0] for label in labels] == ["c0", "c1", "c2", "c77", "c78", "c79", "mean"]
    assert labels[-1] == f"mean of 79 ({np.nanmean(rank):.2f})"


@pytest.mark.slow
def test_a_small_confusion_matrix_has_numbers():
    few, many = (drawn(LIGHT, *CHARTS[name])[0].axes[0] for name in ("confusions", "many classes"))

    assert sorted(text.get_text() for text in few.texts) == ["1", "2", "3", "5"] and not many.texts
    assert [label.get_text() for label in few.get_xticklabels()] == ["a", "b", "missed"]
    assert [label.get_text() for label in few.get_yticklabels()] == ["a", "b", "background"]


def test_matplotlib_settings_are_restored():
    before = dict(rcParams)

    drawn(DARK, *CHARTS["losses"])

    assert dict(rcParams) == before


@pytest.mark.parametrize(
    "name, short",
    [("a" * 20, "a" * 20), ("a" * 21, "a" * 19 + "…"), ("猫" * 10, "猫" * 10), ("猫" * 11, "猫" * 9 + "…")],
)
def test_long_names_are_cut(name, short):
    assert shortened(name) == short
