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
from .class_section import class_bars, class_curves, class_table, confusion_table
from .figures import Card
from .galleries import error_galleries
from .images import draw_pair, spread
from .words import counted, omitted, percent

# Images with ground truth beside detections, and classes whose colours are named.
PAIRS, COLORS = 12, 16
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
