"""How well a detector does on a dataset: figures, curves, labels beside predictions, and its worst mistakes."""

import os
from dataclasses import dataclass, field

import numpy as np

from ..errors import InputError
from ..evaluation.coco import inference_folder
from ..utils.drawing import class_colors
from . import charts
from .about_classes import ClassRow, tell_classes, tell_confusions
from .boxes import load_dataset, load_results
from .findings import FIGURES, find
from .folder import Shown, slug
from .galleries import Gallery, tell_mistakes
from .images import draw_pair, of_image, spread
from .metrics import curve
from .mistakes import BADLY_PLACED, BESIDE, CONFUSED, DUPLICATE, FALSE_FIND, MISSED, RIGHT, SECOND_CLASS
from .words import counted, percent

# Images with labels beside predictions, and classes whose colours are named.
PAIRS, COLORS = 12, 16


@dataclass
class Test:
    """Of a dataset: figures, and what follows from the boxes found in it. `missing` says why nothing does.

    figures: pairs of a name and a text. facts: list of lines. notes: list of lines about what is left out.
    curves, bars: list of `Shown`. classes: list of `ClassRow`. matrix: `Shown`, None for no class.
    confusions: rows of class of the object, of the detection, count and share, as texts.
    overall: `ClassRow` of all classes at one threshold.
    pairs: list of `Shown`. pairs_note: a line about images that cannot be read. colors: pairs of a class and its
        (R, G, B).
    kinds: list of `Shown`. galleries: list of `Gallery`.
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
    kinds: list = field(default_factory=list)
    galleries: list[Gallery] = field(default_factory=list)


def tell_test(run, folder, name, several):
    """The `Test` of a `Run` on a dataset; its images go into a `ImageFolder`.

    Args:
        several: whether there are other datasets, too: names of files and figures then have this one's.
    """
    path = os.path.join(inference_folder(run.cfg, name), "coco_instances_results.json")
    try:
        dataset = load_dataset(name)
        results, notes = load_results(path, dataset)
    except InputError as error:
        return without_boxes(run.metrics, name, f"{name}/" if several else "", str(error))
    findings = find(dataset, results)
    facts = facts_of(findings, results) + best_of(run.metrics, f"{name}/" if several else "")
    test = Test(name, [(key, percent(value)) for key, value in findings.figures.items()], facts)
    test.notes += notes
    prefix = name if several else ""
    tell_classes(test, findings, folder, prefix)
    tell_confusions(test, findings, folder, prefix)
    tell_pairs(test, findings, folder, prefix)
    tell_kinds(test, findings, folder, prefix)
    test.galleries = tell_mistakes(findings, folder, prefix)
    return test


def without_boxes(records, name, prefix, why):
    """What is known of a test of which only metrics.json speaks."""
    points = {key: curve(records, f"{prefix}bbox/{key}") for key in FIGURES}
    figures = [(key, percent(values[-1] / 100)) for key, (_, values) in points.items() if len(values)]
    ends = [iterations[-1] for iterations, values in points.values() if len(values)]
    facts = [f"figures of metrics.json, after {max(ends):,} iterations"] if figures else []
    return Test(name, figures, facts, missing=why)


def facts_of(findings, results):
    dataset = findings.dataset
    crowds = int(findings.boxes.objects["crowd"].sum())
    return [
        counted(len(dataset.files), "image"),
        counted(int(findings.sweep.totals.sum()), "object") + (f" and {counted(crowds, 'crowd')}" if crowds else ""),
        counted(len(dataset.classes), "class", "classes"),
        counted(len(results), "detection"),
    ]


def best_of(records, prefix):
    """A line about the best evaluation of a training, if there were several."""
    iterations, values = curve(records, f"{prefix}bbox/AP")
    if len(values) < 2:
        return []
    best = values.argmax()
    return [f"best AP of the training {values[best]:.1f}, after {iterations[best]:,} iterations"]


def tell_pairs(test, findings, folder, prefix):
    """Labels beside predictions of some images."""
    dataset, unreadable, classes = findings.dataset, [], []
    for number, index in enumerate(spread(findings.boxes, PAIRS), 1):
        name = os.path.basename(dataset.files[index])
        rows = [of_image(rows, index) for rows in findings.boxes]
        try:
            drawn = draw_pair(dataset, *rows, index)
        except InputError as error:
            unreadable.append(str(error))
            continue
        images = [
            folder.photograph(slug(f"image_{number:02}_{what}", prefix), f"{what} of {name}", image)
            for what, image in zip(("labels", "predictions"), drawn, strict=True)
        ]
        line = f"{counted(len(rows[0]), 'label')}, {counted(len(rows[1]), 'prediction')}"
        test.pairs.append(Shown(images, lines=(name, line)))
        classes += [rows[0]["category"], rows[1]["category"]]
    if unreadable:
        test.pairs_note = f"{counted(len(unreadable), 'image')} left out: {unreadable[0]}."
    elif not test.pairs:
        test.pairs_note = "Left out: there is neither an object nor a detection in any image."
    if test.pairs:
        numbers = np.bincount(np.concatenate(classes), minlength=len(dataset.classes))
        colors = class_colors(len(dataset.classes))
        often = np.argsort(-numbers, kind="stable")[: min(COLORS, np.count_nonzero(numbers))]
        test.colors = [(dataset.classes[k], colors[k]) for k in often]


def tell_kinds(test, findings, folder, prefix):
    """What becomes of detections and of objects, in numbers."""
    verdict = findings.verdict
    of_detections = {
        "right": (RIGHT, 2), "wrong class": (CONFUSED, 3), "badly placed": (BADLY_PLACED, 4),
        "duplicate": (DUPLICATE, 4), "second class": (SECOND_CLASS, 3), "beside another class": (BESIDE, 3),
        "false find": (FALSE_FIND, 1),
    }  # fmt: skip
    of_objects = {
        "found": (RIGHT, 2), "wrong class": (CONFUSED, 3), "badly placed": (BADLY_PLACED, 4), "missed": (MISSED, 1)
    }  # fmt: skip
    for what, kinds, values in (("detections", of_detections, verdict.kind), ("objects", of_objects, verdict.state)):
        title = f"What becomes of {what}"
        counts = [int((values == kind).sum()) for kind, _ in kinds.values()]
        colors = [color for _, color in kinds.values()]
        name, arguments = slug(f"{what}_by_kind", prefix), (list(kinds), counts, colors, what)
        test.kinds.append(Shown([folder.chart(name, title, charts.kinds, *arguments)], title))
    ious, title = verdict.iou[verdict.kind == RIGHT], "How well right detections are placed"
    if len(ious):
        test.kinds.append(Shown([folder.chart(slug("placement", prefix), title, charts.placement, ious)], title))
