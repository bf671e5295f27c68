"""The metrics of each class: curves, bars, a table, and the confusion matrix."""

import numpy as np

from . import charts
from .thresholds import SCORES
from .words import counted, percent, share

CONFUSIONS = 10  # rows in the table of frequent confusions
SIZES = {"small": "< 32² px", "medium": "32² to 96² px", "large": "> 96² px"}


def class_curves(analysis, folder):
    """Return a list of `Card`: precision over recall and F1 over the score threshold."""
    names, thresholds, f1 = analysis.dataset.classes, analysis.thresholds, analysis.sweep.rates()[2]
    best = f1[np.arange(len(names)), thresholds]
    precision = analysis.recalls, analysis.precision, names, analysis.ap50, ("recall", "precision")
    over_scores = SCORES, f1, names, best, ("score threshold", "F1"), thresholds
    draw, at = charts.curves_of_classes, "At an IoU of 0.5. In brackets"
    return [
        folder.chart("precision_recall", "Precision and recall", draw, *precision, lines=(f"{at}: AP50.",)),
        folder.chart("f1", "F1 over the score threshold", draw, *over_scores, lines=(f"{at}, and dots: the best F1.",)),
    ]


def class_bars(analysis, folder):
    """Return a list of `Card`: AP by object size and by class; of very many classes the best and the worst."""
    lines = [
        f"{size}\n{limits}\n{counted(count, 'object')}"
        for (size, limits), count in zip(SIZES.items(), analysis.size_counts, strict=True)
    ]
    by_size = 100 * np.array([analysis.metrics[key] for key in ("APs", "APm", "APl")])
    cards = [folder.chart("ap_by_size", "AP by size of the object", charts.size_bars, lines, by_size)]
    order = np.flatnonzero(analysis.sweep.totals)
    order = order[np.argsort(-analysis.ap[order], kind="stable")]
    if len(order) > 4 * charts.BARS:
        order = np.concatenate([order[: 2 * charts.BARS], order[-2 * charts.BARS :]])
    parts = -(-len(order) // charts.BARS)
    for number, part in enumerate(np.array_split(order, parts), 1):
        name, title = "ap_by_class", "AP of the classes"
        if parts > 1:
            name, title = f"{name}_{number}", f"{title}, {number} of {parts}"
        names, values = [analysis.dataset.classes[k] for k in part], 100 * analysis.ap[part]
        cards.append(folder.chart(name, title, charts.class_bars, names, values, 100 * analysis.ap[order].max()))
    return cards


def class_table(analysis):
    """Return the rows of the table of classes, then the row of all classes at one threshold, as tuples of texts."""
    metrics, together = analysis.metrics, analysis.sweep.together()
    rows = table_rows(analysis.dataset.classes, analysis.sweep, analysis.ap, analysis.ap50, analysis.thresholds)
    return rows + table_rows(["all, one threshold"], together, [metrics["AP"]], [metrics["AP50"]], [analysis.overall])


def table_rows(names, sweep, aps, aps50, thresholds):
    rates = (rate[np.arange(len(names)), thresholds] for rate in sweep.rates())
    rows = zip(names, sweep.totals, aps, aps50, SCORES[thresholds], *rates, strict=True)
    return [
        (name, f"{total:,}", percent(ap), percent(ap50), *map(share, values)) for name, total, ap, ap50, *values in rows
    ]


def confusion_table(analysis):
    """Return the largest entries off the diagonal: ground truth, detected as, number and share, as tuples of texts."""
    names, between = analysis.dataset.classes, analysis.matrix[:-1, :-1].copy()
    np.fill_diagonal(between, 0)
    order = np.argsort(-between, axis=None, kind="stable")[:CONFUSIONS]
    return [
        (names[i], names[j], f"{between[i, j]:,}", f"{percent(between[i, j] / analysis.sweep.totals[i])}%")
        for i, j in np.stack(np.unravel_index(order, between.shape), axis=1)
        if between[i, j]
    ]
