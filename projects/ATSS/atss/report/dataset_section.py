"""The section of a dataset: metrics, curves, ground truth beside detections, and errors."""

import os

import numpy as np

from ..errors import InputError
from ..evaluation.coco import inference_folder
from ..utils.drawing import class_colors
from . import charts
from . import outcomes as kinds
from .analysis import METRICS, analyze
from .boxes import image_slice, load_dataset, load_detections
from .figures import Card
from .galleries import error_galleries
from .images import draw_pair, spread
from .thresholds import SCORES
from .words import counted, omitted, percent, share

# Images with ground truth beside detections, and classes whose colours are named.
PAIRS, COLORS = 12, 16
CONFUSIONS = 10  # rows in the table of frequent confusions
SIZES = {"small": "< 32² px", "medium": "32² to 96² px", "large": "> 96² px"}
# Outcomes with their colours in the theme.
DETECTIONS = {
    "correct": (kinds.CORRECT, 2), "wrong class": (kinds.WRONG_CLASS, 3), "mislocalized": (kinds.MISLOCALIZED, 4),
    "duplicate": (kinds.DUPLICATE, 4), "duplicate of another class": (kinds.DUPLICATE_OTHER, 3),
    "near another class": (kinds.NEAR_OTHER, 3), "false positive": (kinds.FALSE_POSITIVE, 1),
}  # fmt: skip
GROUND_TRUTH = {
    "detected": (kinds.CORRECT, 2), "wrong class": (kinds.WRONG_CLASS, 3), "mislocalized": (kinds.MISLOCALIZED, 4),
    "missed": (kinds.MISSED, 1),
}  # fmt: skip


def dataset_section(run, name, folder):
    """Return what page.html shows of a `Run` on a dataset, as a dict; images are written into an `ImageFolder`."""
    path = os.path.join(inference_folder(run.cfg, name), "coco_instances_results.json")
    try:
        dataset = load_dataset(name)
        detections, notes = load_detections(path, dataset)
    except InputError as error:
        return without_boxes(run, name, str(error))
    analysis = analyze(dataset, detections)
    totals, crowds = analysis.sweep.totals, int(dataset.objects["crowd"].sum())
    facts = [
        counted(len(dataset.files), "image"),
        counted(int(totals.sum()), "object") + (f" and {counted(crowds, 'crowd')}" if crowds else ""),
        counted(len(dataset.classes), "class", "classes"),
        counted(analysis.num_detections, "detection"),
    ]
    iterations, values = run.curve("bbox/AP", name)
    if len(values) > 1:
        best = values.argmax()
        facts.append(f"best AP during training {values[best]:.1f}, after {iterations[best]:,} iterations")
    curves, bars = [], []
    if totals.any():
        curves, bars = class_curves(analysis, folder), class_bars(analysis, folder)
        without = [dataset.classes[k] for k in np.flatnonzero(totals == 0)]
        if without:
            notes.append(f"Without ground truth, and so without AP: {', '.join(without)}.")
    else:
        notes.append("Curves and bars omitted: the dataset has no ground truth.")
    if not analysis.tide:
        notes.append("TIDE and calibration omitted: they need hotcoco, ground truth and detections.")
    if analysis.calibration:
        ece, bins = analysis.calibration["ece"], analysis.calibration["bins"]
        line = f"Precision of the detections by score. Expected calibration error: {ece:.3f}."
        bars.append(folder.chart("calibration", "Calibration", charts.calibration, bins, lines=(line,)))
    *classes, overall = class_table(analysis)
    matrix = folder.chart(
        "confusion_matrix", "", charts.confusions, analysis.matrix, dataset.classes,
        alt="Confusion matrix: class of the ground truth against class of the detection",
        wide=len(dataset.classes) > charts.WITH_NUMBERS,
    )  # fmt: skip
    return {
        "name": name,
        "missing": "",
        "metrics": [(key, percent(value)) for key, value in analysis.metrics.items()],
        "facts": facts,
        "notes": notes,
        "curves": curves,
        "bars": bars,
        "classes": classes,
        "overall": overall,
        "matrix": matrix,
        "confusions": confusion_table(analysis),
        **image_pairs(analysis, folder),
        "outcomes": outcome_charts(analysis, folder),
        "galleries": error_galleries(analysis, folder),
    }


def without_boxes(run, name, why):
    """Return what metrics.json has about a dataset whose detections cannot be read."""
    curves = {key: run.curve(f"bbox/{key}", name) for key in METRICS}
    curves = {key: curve for key, curve in curves.items() if len(curve.values)}
    metrics = [(key, percent(curve.values[-1] / 100)) for key, curve in curves.items()]
    last = max((curve.iterations[-1] for curve in curves.values()), default=0)
    facts = [f"metrics from metrics.json, after {last:,} iterations"] if curves else []
    return {"name": name, "missing": why, "metrics": metrics, "facts": facts}


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


def image_pairs(analysis, folder):
    """Draw ground truth beside detections: `pairs`, `pairs_note` and the `colors` of the most frequent classes."""
    dataset, cards, unreadable, classes = analysis.dataset, [], [], []
    for number, index in enumerate(spread(analysis.boxes, PAIRS), 1):
        name = os.path.basename(dataset.files[index])
        objects, detections = (rows[image_slice(rows, index)] for rows in analysis.boxes)
        try:
            truth, found = draw_pair(dataset, objects, detections, index)
        except InputError as error:
            unreadable.append(error)
            continue
        images = [
            folder.photo(f"image_{number:02}_ground_truth", f"ground truth of {name}", truth),
            folder.photo(f"image_{number:02}_detections", f"detections of {name}", found),
        ]
        line = f"{counted(len(objects), 'object')}, {counted(len(detections), 'detection')}"
        cards.append(Card(images, lines=(name, line)))
        classes += [*objects["category"], *detections["category"]]
    note = omitted(unreadable)
    if not cards and not unreadable:
        note = "Omitted: no image has ground truth or detections."
    numbers = np.bincount(np.array(classes, dtype=int), minlength=len(dataset.classes))
    colors = class_colors(len(dataset.classes))
    frequent = np.argsort(-numbers, kind="stable")[: min(COLORS, np.count_nonzero(numbers))]
    return {"pairs": cards, "pairs_note": note, "colors": [(dataset.classes[k], colors[k]) for k in frequent]}


def outcome_charts(analysis, folder):
    """Return a list of `Card`: detections and ground truth by outcome, IoUs, and the AP that errors cost."""
    outcomes, cards = analysis.outcomes, []
    for what, table, values in (
        ("detections", DETECTIONS, outcomes.kind), ("ground truth", GROUND_TRUTH, outcomes.state)
    ):  # fmt: skip
        counts = [int((values == kind).sum()) for kind, _ in table.values()]
        colors = [color for _, color in table.values()]
        name = f"{what.replace(' ', '_')}_by_outcome"
        cards.append(folder.chart(name, f"Outcomes of {what}", charts.outcomes, list(table), counts, colors, what))
    ious = outcomes.iou[outcomes.kind == kinds.CORRECT]
    if len(ious):
        cards.append(folder.chart("localization", "IoU of correct detections", charts.localization, ious))
    if analysis.tide:
        lines = ("AP50 gained if all errors of the kind were corrected.",)
        cards.append(folder.chart("tide", "AP that errors cost (TIDE)", charts.tide, analysis.tide, lines=lines))
    return cards
