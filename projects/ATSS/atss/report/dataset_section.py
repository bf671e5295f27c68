"""The section of a dataset: metrics, curves, ground truth beside detections, and errors."""

import os
from dataclasses import dataclass, field

import numpy as np

from ..errors import InputError
from ..evaluation.coco import inference_folder
from ..utils.drawing import class_colors
from . import charts
from .analysis import FIGURES, analyze
from .boxes import load_dataset, load_results
from .class_section import ClassRow, add_classes, add_confusions
from .figures import Shown, slug
from .galleries import Gallery, error_galleries
from .images import draw_pair, of_image, spread
from .metrics import curve
from .outcomes import (
    CORRECT,
    DUPLICATE,
    DUPLICATE_OTHER,
    FALSE_POSITIVE,
    MISLOCALIZED,
    MISSED,
    NEAR_OTHER,
    WRONG_CLASS,
)
from .words import counted, percent

# Images with ground truth beside detections, and classes whose colours are named.
PAIRS, COLORS = 12, 16
# Outcomes with their colours in the theme.
DETECTIONS = {
    "correct": (CORRECT, 2), "wrong class": (WRONG_CLASS, 3), "mislocalized": (MISLOCALIZED, 4),
    "duplicate": (DUPLICATE, 4), "duplicate of another class": (DUPLICATE_OTHER, 3),
    "near another class": (NEAR_OTHER, 3), "false positive": (FALSE_POSITIVE, 1),
}  # fmt: skip
GROUND_TRUTH = {
    "detected": (CORRECT, 2), "wrong class": (WRONG_CLASS, 3), "mislocalized": (MISLOCALIZED, 4), "missed": (MISSED, 1)
}  # fmt: skip


@dataclass
class Test:
    """What the page shows of a dataset. `missing` says why there is nothing but figures.

    figures: pairs of a name and a text. facts: list of lines. notes: list of lines about what is omitted.
    curves, bars: list of `Shown`. classes: list of `ClassRow`. matrix: `Shown`, None for no class.
    confusions: rows of class of the ground truth, of the detection, count and share, as texts.
    overall: `ClassRow` of all classes at one threshold.
    pairs: list of `Shown`. pairs_note: a line about images that cannot be read. colors: pairs of a class and its
        (R, G, B).
    outcomes: list of `Shown`. galleries: list of `Gallery`.
    """

    name: str
    figures: list
    facts: list
    missing: str = ""
    notes: list = field(default_factory=list)
    curves: list = field(default_factory=list)
    bars: list = field(default_factory=list)
    classes: list = field(default_factory=list)
    overall: ClassRow | None = None
    matrix: Shown | None = None
    confusions: list = field(default_factory=list)
    pairs: list = field(default_factory=list)
    pairs_note: str = ""
    colors: list = field(default_factory=list)
    outcomes: list = field(default_factory=list)
    galleries: list[Gallery] = field(default_factory=list)


def dataset_section(run, folder, name, several):
    """The `Test` of a `Run` on a dataset; its images go into an `ImageFolder`.

    Args:
        several: whether there are other datasets: names of files and metrics then start with this one's.
    """
    path = os.path.join(inference_folder(run.cfg, name), "coco_instances_results.json")
    try:
        dataset = load_dataset(name)
        results, notes = load_results(path, dataset)
    except InputError as error:
        return without_boxes(run.metrics, name, f"{name}/" if several else "", str(error))
    analysis = analyze(dataset, results)
    facts = facts_of(analysis, results) + best_of(run.metrics, f"{name}/" if several else "")
    test = Test(name, [(key, percent(value)) for key, value in analysis.figures.items()], facts)
    test.notes += notes
    prefix = name if several else ""
    add_classes(test, analysis, folder, prefix)
    add_confusions(test, analysis, folder, prefix)
    add_pairs(test, analysis, folder, prefix)
    add_outcomes(test, analysis, folder, prefix)
    add_calibration(test, analysis, folder, prefix)
    test.galleries = error_galleries(analysis, folder, prefix)
    return test


def without_boxes(records, name, prefix, why):
    """What metrics.json says about a dataset whose detections cannot be read."""
    points = {key: curve(records, f"{prefix}bbox/{key}") for key in FIGURES}
    figures = [(key, percent(values[-1] / 100)) for key, (_, values) in points.items() if len(values)]
    ends = [iterations[-1] for iterations, values in points.values() if len(values)]
    facts = [f"metrics of metrics.json, after {max(ends):,} iterations"] if figures else []
    return Test(name, figures, facts, missing=why)


def facts_of(analysis, results):
    dataset = analysis.dataset
    crowds = int(analysis.boxes.objects["crowd"].sum())
    return [
        counted(len(dataset.files), "image"),
        counted(int(analysis.sweep.totals.sum()), "object") + (f" and {counted(crowds, 'crowd')}" if crowds else ""),
        counted(len(dataset.classes), "class", "classes"),
        counted(len(results), "detection"),
    ]


def best_of(records, prefix):
    """A line about the best evaluation during training, if there were several."""
    iterations, values = curve(records, f"{prefix}bbox/AP")
    if len(values) < 2:
        return []
    best = values.argmax()
    return [f"best AP during training {values[best]:.1f}, after {iterations[best]:,} iterations"]


def add_pairs(test, analysis, folder, prefix):
    """Ground truth beside detections, of some images."""
    dataset, unreadable, classes = analysis.dataset, [], []
    for number, index in enumerate(spread(analysis.boxes, PAIRS), 1):
        name = os.path.basename(dataset.files[index])
        rows = [of_image(rows, index) for rows in analysis.boxes]
        try:
            drawn = draw_pair(dataset, *rows, index)
        except InputError as error:
            unreadable.append(str(error))
            continue
        images = [
            folder.photograph(slug(f"image_{number:02}_{what.replace(' ', '_')}", prefix), f"{what} of {name}", image)
            for what, image in zip(("ground truth", "detections"), drawn, strict=True)
        ]
        line = f"{counted(len(rows[0]), 'object')}, {counted(len(rows[1]), 'detection')}"
        test.pairs.append(Shown(images, lines=(name, line)))
        classes += [rows[0]["category"], rows[1]["category"]]
    if unreadable:
        test.pairs_note = f"{counted(len(unreadable), 'image')} omitted: {unreadable[0]}."
    elif not test.pairs:
        test.pairs_note = "Omitted: no image has ground truth or detections."
    if test.pairs:
        numbers = np.bincount(np.concatenate(classes), minlength=len(dataset.classes))
        colors = class_colors(len(dataset.classes))
        often = np.argsort(-numbers, kind="stable")[: min(COLORS, np.count_nonzero(numbers))]
        test.colors = [(dataset.classes[k], colors[k]) for k in often]


def add_outcomes(test, analysis, folder, prefix):
    """Numbers of detections and of ground-truth boxes by outcome, and the AP that each kind of error costs."""
    outcomes = analysis.outcomes
    for what, names, values in (
        ("detections", DETECTIONS, outcomes.kind),
        ("ground truth", GROUND_TRUTH, outcomes.state),
    ):
        title = f"Outcomes of {what}"
        counts = [int((values == kind).sum()) for kind, _ in names.values()]
        colors = [color for _, color in names.values()]
        name = slug(f"{what.replace(' ', '_')}_by_outcome", prefix)
        test.outcomes.append(
            Shown([folder.chart(name, title, charts.outcomes, list(names), counts, colors, what)], title)
        )
    ious, title = outcomes.iou[outcomes.kind == CORRECT], "IoU of correct detections"
    if len(ious):
        name = slug("localization", prefix)
        test.outcomes.append(Shown([folder.chart(name, title, charts.localization, ious)], title))
    if analysis.tide:
        title, line = "AP that errors cost (TIDE)", "AP50 gained if all errors of the kind were corrected."
        chart = folder.chart(slug("tide", prefix), title, charts.tide, analysis.tide)
        test.outcomes.append(Shown([chart], title, (line,)))
    else:
        test.notes.append("TIDE and calibration omitted: they need hotcoco, ground truth and detections.")


def add_calibration(test, analysis, folder, prefix):
    """How often detections of a score are correct."""
    if analysis.calibration:
        title = "Calibration"
        line = f"Precision of the detections by score. Expected calibration error: {analysis.calibration['ece']:.3f}."
        chart = folder.chart(slug("calibration", prefix), title, charts.calibration, analysis.calibration["bins"])
        test.bars.append(Shown([chart], title, (line,)))
