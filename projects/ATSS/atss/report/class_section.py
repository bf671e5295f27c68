"""The metrics of each class: curves, bars, a table, and the confusion matrix."""

from typing import NamedTuple

import numpy as np

from . import charts
from .figures import Shown, slug
from .thresholds import SCORES
from .words import counted, percent, share

# Rows of frequent confusions.
CONFUSIONS = 10
SIZES = ("small", "medium", "large")
LIMITS = ("< 32² px", "32² to 96² px", "> 96² px")


class ClassRow(NamedTuple):
    """A class in numbers, as texts."""

    name: str
    objects: str
    ap: str
    ap50: str
    threshold: str
    precision: str
    recall: str
    f1: str


def add_classes(test, analysis, folder, prefix):
    """Curves, bars and table of the classes."""
    names, sweep = analysis.dataset.classes, analysis.sweep
    f1, at = sweep.f1(), (np.arange(len(names)), analysis.thresholds)
    with_objects = np.flatnonzero(sweep.totals)
    if not len(with_objects):
        test.notes.append("Curves and bars omitted: the dataset has no ground truth.")
    else:
        for key, title, line, arguments in (
            ("precision_recall", "Precision and recall", "At an IoU of 0.5. In brackets: AP50.",
             (analysis.recalls, analysis.precision, names, analysis.ap50, ("recall", "precision"), None)),
            ("f1", "F1 over the least score", "At an IoU of 0.5. In brackets, and dots: the best F1.",
             (SCORES, f1, names, f1[at], ("score from which detections count", "F1"), analysis.thresholds)),
        ):  # fmt: skip
            chart = folder.chart(slug(key, prefix), title, charts.curves_of_classes, *arguments)
            test.curves.append(Shown([chart], title, (line,)))
        lines = [
            f"{size}\n{limits}\n{counted(number, 'object')}"
            for size, limits, number in zip(SIZES, LIMITS, analysis.size_counts, strict=True)
        ]
        by_size = 100 * np.array([analysis.figures[key] for key in ("APs", "APm", "APl")])
        chart = folder.chart(slug("ap_by_size", prefix), "AP by size of the object", charts.size_bars, lines, by_size)
        test.bars.append(Shown([chart], "AP by size of the object"))
        order = with_objects[np.argsort(-analysis.ap[with_objects], kind="stable")]
        test.bars += class_bars_of(analysis, order, folder, prefix)
    values = zip(
        names, sweep.totals, analysis.ap, analysis.ap50, SCORES[analysis.thresholds],
        *(rates[at] for rates in (sweep.precision(), sweep.recall(), f1)), strict=True,
    )  # fmt: skip
    test.classes = [row(*value) for value in values]
    together, place = sweep.together(), analysis.overall
    rates = (rates[0, place] for rates in (together.precision(), together.recall(), together.f1()))
    test.overall = row("all, one threshold", together.totals[0], *figures_of(analysis), SCORES[place], *rates)
    without = [names[k] for k in np.flatnonzero(sweep.totals == 0)]
    if without and len(with_objects):
        test.notes.append(f"Without ground truth, and so without AP: {', '.join(without)}.")


def figures_of(analysis):
    return analysis.figures["AP"], analysis.figures["AP50"]


def row(name, total, ap, ap50, threshold, *rates):
    return ClassRow(name, f"{total:,}", percent(ap), percent(ap50), share(threshold), *map(share, rates))


def class_bars_of(analysis, order, folder, prefix):
    """AP of the classes in `order`, in as many charts as needed; of very many the best and the worst."""
    shown, most = [], 4 * charts.BARS
    if len(order) > most:
        order = np.concatenate([order[: most // 2], order[-most // 2 :]])
    parts = -(-len(order) // charts.BARS)
    for number, part in enumerate(np.array_split(order, parts), 1):
        text = "AP of the classes" + (f", {number} of {parts}" if parts > 1 else "")
        names = [analysis.dataset.classes[k] for k in part]
        name = slug(f"ap_by_class_{number}" if parts > 1 else "ap_by_class", prefix)
        values, highest = (100 * analysis.ap[part]).tolist(), 100 * analysis.ap[order].max()
        chart = folder.chart(name, text, charts.class_bars, names, values, highest)
        shown.append(Shown([chart], text))
    return shown


def add_confusions(test, analysis, folder, prefix):
    """The confusion matrix, and its largest entries off the diagonal."""
    matrix, names = analysis.matrix, analysis.dataset.classes
    text = "Confusion matrix: class of the ground truth against class of the detection"
    chart = folder.chart(slug("confusion_matrix", prefix), text, charts.confusions, matrix, names)
    test.matrix = Shown([chart], "", wide=len(names) > charts.WITH_NUMBERS)
    between = matrix[:-1, :-1].copy()
    np.fill_diagonal(between, 0)
    for place in np.argsort(-between, axis=None, kind="stable")[:CONFUSIONS]:
        i, j = np.unravel_index(place, between.shape)
        if between[i, j]:
            part = between[i, j] / analysis.sweep.totals[i]
            test.confusions.append((names[i], names[j], f"{between[i, j]:,}", f"{percent(part)}%"))
