#!/usr/bin/env python
"""Look at a dataset before training: what is in it, what is wrong with it, and what ATSS will make of its objects.

    python tools/check_dataset.py cells/ --output drawn/

reads a folder in COCO's, YOLO's or Pascal VOC's format and opens all of its images; with --output it draws some of
them with their labels. With --config-file and without a folder it looks at DATASETS.TRAIN and DATASETS.TEST. The exit
status is 1 where training would refuse the dataset.
"""

import argparse
import os
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import atss  # noqa: F401  (before Detectron2, whose deprecation warnings it silences)

# isort: split
import numpy as np
import torch
from detectron2.data import DatasetCatalog
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image
from tabulate import tabulate

from atss.config import load_config, parse_with_opts
from atss.data import read_dataset
from atss.data.catalog import source_of, table_of
from atss.data.coco import classes_of, dicts_of
from atss.data.folders import find_dataset
from atss.data.image_inspection import inspect_images
from atss.data.image_io import read_image
from atss.data.inspection import Table, inspect, sound_content, unnamed_images
from atss.data.problems import Problem, errors_of, located
from atss.errors import InputError, one_line_errors
from atss.study.positives import Geometry, on_cpu
from atss.utils.drawing import class_colors, draw_boxes, mosaic

CONFIG = Path(__file__).resolve().parent.parent / "configs/atss_R_50_FPN_1x.yaml"
# Lower edges of the bins of the histograms. Sizes are roots of areas in pixels; COCO's are small, medium and large.
SIZES = {0: "small", 32: "medium", 96: "large"}
SIDES = (0, 8, 16, 32, 64, 96, 128, 256, 512)
RATIOS = (0, 1 / 8, 1 / 4, 1 / 2, 1 / 1.25, 1.25, 2, 4, 8)
PER_IMAGE = (0, 1, 2, 3, 5, 10, 20, 50, 100)
NUMBERS = ["0", "1", "2", "3 to 4", "5 to 9", "10 to 19", "20 to 49", "50 to 99", "100 and more"]
BAR = 40
# Images whose objects are given to the assigner, and that are drawn.
MAX_MATCHED, MAX_DRAWN, COLUMNS = 1000, 12, 4
# Classes that are named below their bars.
MAX_NAMED = 40
ORDER = ("error", "warning", "note")


class Part(NamedTuple):
    """A dataset as far as it could be read.

    records: dicts in Detectron2's standard form.
    """

    table: Table
    records: list


def get_parser():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", metavar="FOLDER", help="default: the datasets of the config")
    parser.add_argument("--output", metavar="DIR", help="folder for labels.jpg and histograms.png")
    parser.add_argument("--config-file", default=str(CONFIG), metavar="FILE", help=f"default: {CONFIG.name}")
    parser.add_argument("--quick", action="store_true", help="do not open the images")
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="config keys and values")
    return parser


def main(args):
    """Returns the exit status."""
    # With a name for the classes the config is made without a look at the datasets.
    settled = ["MODEL.DEVICE", "cpu", "MODEL.ATSS.NUM_CLASSES", "1", "MODEL.ATSS.CLASS_NAMES", "['any']"]
    cfg = load_config(args.config_file, [*args.opts, *settled], read_datasets=False)
    folder = args.folder or cfg.DATASETS.FOLDER
    sources, to_learn = find_sources(folder, cfg)

    parts, problems = [], missing_parts(folder, sources) if folder else []
    for name, source in sources.items():
        part, found = read_part(name, source)
        parts += [part] if part else []
        problems += located(name, found)
    tables = [part.table for part in parts]
    problems += inspect(tables, to_learn) + unnamed_images(tables)
    if not args.quick:
        # The same images are then known by what is in them.
        problems = [problem for problem in problems if problem.kind != "images in both"] + inspect_images(tables)

    print(f"\n{contents(tables)}")
    histograms = histograms_of(tables)
    for title, histogram in histograms.items():
        print(f"\n{title}\n{bars(histogram)}")
    records = [record for part in parts for record in part.records]
    levels = match_levels(cfg, records)
    print(f"\n{levels.text()}")
    print(f"\n{listing(problems)}")
    if args.output:
        write(args.output, tables, histograms, levels)
    return 1 if errors_of(problems) else 0


def find_sources(folder, cfg):
    """dict from name to `Source`, None where the dataset has none; and the names of those to train on."""
    if folder:
        dataset = find_dataset(folder)
        print(f"{folder}: {dataset.layout}, with {', '.join(dataset.parts)}")
        sources = {f"{dataset.name}_{part}": source for part, source in dataset.parts.items()}
        return sources, [f"{dataset.name}_train"]
    names = list(dict.fromkeys((*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST)))
    if not names:
        raise InputError("name a folder, or datasets in DATASETS.TRAIN and DATASETS.TEST")
    for name in names:
        if name not in DatasetCatalog.list():
            raise InputError(
                f"DATASETS: there is no dataset named {name!r}; docs/own_data.md says how to register yours"
            )
    return {name: source_of(name) for name in names}, cfg.DATASETS.TRAIN


def missing_parts(folder, names):
    """What a folder lacks to train and to evaluate on, as a list of `Problem`."""
    parts = {name.rpartition("_")[2] for name in names}
    lacks = {"train": not parts & {"train"}, "val or test": not parts & {"val", "test"}}
    remedy = "make one, or name datasets in DATASETS.TRAIN and DATASETS.TEST"
    return [
        Problem("warning", f"no part {part}", 1, 1, "datasets", [f"it has {', '.join(sorted(parts))}"], remedy, folder)
        for part, is_missing in lacks.items()
        if is_missing
    ]


def read_part(name, source):
    """As much of a dataset as can be read: `Part`, None where nothing can, and a list of `Problem`."""
    try:
        if source is None:
            records = read_dataset(name)
            return Part(table_of(name, records), records), []
        content = source.read()
        if source.path != content.image_folder:
            print(f"{name}: {content.file}, images in {content.image_folder}")
    except InputError as error:
        return None, [Problem("error", "dataset that cannot be read", 1, 1, "datasets", [str(error)], "see above")]
    coco, problems = sound_content(content.coco)
    records = dicts_of(coco, content.image_folder)
    return Part(Table.of(name, records, classes_of(coco).values()), records), content.problems + problems


def contents(tables):
    """Text: images and objects of each dataset, and of each of its classes."""
    rows = []
    for table in tables:
        images, objects = len(table.file_names), len(table.boxes)
        empty = images - len(np.unique(table.image))
        rows.append([table.name, images, empty, objects, objects / max(1, images), int(table.crowd.sum())])
    head = ["dataset", "images", "without objects", "objects", "an image", "crowd regions"]
    names = list(dict.fromkeys(name for table in tables for name in table.classes))
    of_class = {name: [] for name in names}
    for table in tables:
        for name in names:
            label = table.classes.index(name) if name in table.classes else -1
            its = table.label == label
            of_class[name] += [int(its.sum()), len(np.unique(table.image[its]))]
    class_head = ["class", *(f"{table.name}\n{what}" for table in tables for what in ("objects", "images"))]
    class_rows = [[name, *counts] for name, counts in of_class.items()]
    of_classes = tabulate(class_rows, class_head, disable_numparse=[0]) if class_rows else "no classes"
    return f"{tabulate(rows, head, floatfmt='.1f')}\n\n{of_classes}"


class Histogram(NamedTuple):
    """Counts between edges, with labels of the bins."""

    labels: list
    counts: list


def histograms_of(tables):
    """dict from title to `Histogram`, over all datasets; boxes without area are left out."""
    boxes = np.concatenate([table.boxes[table.has_area()] for table in tables] or [np.empty((0, 4))])
    sides, ratios = np.sqrt(boxes[:, 2] * boxes[:, 3]), boxes[:, 3] / boxes[:, 2]
    per_image = [np.bincount(table.image, minlength=len(table.file_names)) for table in tables]
    sizes = [f"{name} ({limits})" for name, limits in zip(SIZES.values(), ranges(list(SIZES)), strict=True)]
    return {
        "Objects an image": counted(np.concatenate(per_image or [[]]), PER_IMAGE, NUMBERS),
        "Size of the objects, as COCO calls them: root of the area, in pixels": counted(sides, list(SIZES), sizes),
        "Size of the objects: root of the area, in pixels": counted(sides, SIDES, ranges(SIDES)),
        "Shape of the objects: height / width": counted(ratios, RATIOS, ranges(RATIOS)),
    }


def counted(values, edges, labels):
    """`Histogram` of values from each edge to below the next one, and from the last on."""
    return Histogram(labels, np.histogram(values, [*edges, np.finfo(np.float64).max])[0].tolist())


def ranges(edges):
    """Labels of the bins that begin at these edges."""
    texts = [f"{edge:g}" if edge >= 1 or edge == 0 else f"1/{1 / edge:g}" for edge in edges]
    return [f"{low} to {high}" for low, high in pairwise(texts)] + [f"{texts[-1]} and more"]


def bars(histogram):
    """A line a bin with a bar as long as its share of the longest."""
    most, wide = max([*histogram.counts, 1]), max(map(len, histogram.labels))
    return "\n".join(
        f"  {label:>{wide}} {count:>9,} {'█' * max(round(BAR * count / most), count > 0)}".rstrip()
        for label, count in zip(histogram.labels, histogram.counts, strict=True)
    )


class Levels(NamedTuple):
    """What the assigner makes of the objects.

    rule: name of the assigner.
    names, strides, anchors: of the L levels; the anchors' sides as a text, in pixels of the resized image.
    positives: (G, L) int64, of each object.
    size: of the resized images, as a text.
    images, total: how many were looked at, of how many with objects.
    """

    rule: str
    names: list
    strides: list
    anchors: list
    positives: np.ndarray
    size: str
    images: int
    total: int

    def text(self):
        number, missed = len(self.positives), int((self.positives.sum(1) == 0).sum())
        counts, objects = self.positives.sum(0), (self.positives > 0).sum(0)
        rows = zip(self.names, self.strides, self.anchors, counts, objects, strict=True)
        head = ["level", "stride", "anchors' side", "positives", "objects with positives"]
        some = f", a part of the {self.total:,} that have objects" if self.total > self.images else ""
        return "\n".join(
            [
                f"Positives that {self.rule} gives {number:,} objects in {self.images:,} images{some},",
                f"{self.size}",
                tabulate(rows, head, disable_numparse=[2], colalign=("left", "right", "right", "right", "right")),
                f"{self.positives.sum() / max(1, number):.1f} positives an object; {missed:,} objects have none",
            ]
        )


def match_levels(cfg, records):
    """`Levels` of the objects of some images, taken evenly."""
    geometry = Geometry(on_cpu(cfg))
    records = [record for record in records if record["annotations"]]
    chosen = [records[i] for i in np.linspace(0, len(records) - 1, min(len(records), MAX_MATCHED)).astype(int)]
    names = [name.upper() for name in cfg.MODEL.ATSS.IN_FEATURES]
    positives = [np.empty((0, len(names)), dtype=np.int64)]
    for record in chosen:
        boxes, grid = geometry.boxes(record), geometry.grid(record)
        by_level = geometry.assigner(grid, [boxes])[0].split(grid.level_sizes)
        counts = [torch.bincount(matches[matches >= 0], minlength=len(boxes)) for matches in by_level]
        positives.append(torch.stack(counts, dim=1).numpy())
    grid = geometry.grid({"height": cfg.INPUT.MIN_SIZE_TEST or 800, "width": cfg.INPUT.MIN_SIZE_TEST or 800})
    sides = [(anchors[:, 2:] - anchors[:, :2]).prod(1).sqrt().tolist() for anchors in grid.cell_anchors]
    anchors = [f"{min(s):.0f}" if max(s) - min(s) < 1 else f"{min(s):.0f} to {max(s):.0f}" for s in sides]
    size = f"resized to {cfg.INPUT.MIN_SIZE_TEST} pixels (INPUT.MIN_SIZE_TEST), {cfg.INPUT.MAX_SIZE_TEST} at most"
    return Levels(
        cfg.MODEL.ATSS.ASSIGNER,
        names,
        grid.strides,
        anchors,
        np.concatenate(positives),
        size,
        len(chosen),
        len(records),
    )


def listing(problems):
    """Text: every problem, the worst first, with examples and what to do."""
    numbers = {severity: sum(problem.severity == severity for problem in problems) for severity in ORDER}
    lines = [", ".join(f"{number} {severity}{'s' * (number != 1)}" for severity, number in numbers.items())]
    for problem in sorted(problems, key=lambda problem: ORDER.index(problem.severity)):
        lines.append(f"\n{problem.severity}: {problem.where}: {problem.kind}, {problem.extent()}")
        lines += [f"    {example}" for example in problem.examples]
        lines += ["    ..."] if problem.count > len(problem.examples) else []
        lines.append(f"  -> {problem.remedy}")
    return "\n".join(lines)


def write(output, tables, histograms, levels):
    """Write labels.jpg and histograms.png, and say where."""
    try:
        os.makedirs(output, exist_ok=True)
    except OSError as error:
        raise InputError(f"--output {output}: cannot make this folder ({error.strerror})") from error
    drawn, titles = draw_labels(tables)
    if drawn:
        path = os.path.join(output, "labels.jpg")
        Image.fromarray(mosaic(drawn, min(COLUMNS, len(drawn)), titles=titles)).save(path, quality=85)
        print(f"\nWritten: {path}")
    path = os.path.join(output, "histograms.png")
    plot(tables, histograms, levels).savefig(path)
    print(f"Written: {path}")


def draw_labels(tables):
    """Some images with their boxes, so chosen that every class is shown if they can show it.

    Returns:
        list of (H, W, 3) uint8, RGB, and a list of their titles. Images that cannot be read are left out.
    """
    names = list(dict.fromkeys(name for table in tables for name in table.classes))
    colors = dict(zip(names, class_colors(len(names)), strict=True))
    drawn, titles = [], []
    for table, number in chosen_images(tables, names):
        try:
            image = read_image(table.file_names[number], "RGB")
        except InputError:
            continue
        its = table.image == number
        boxes, labels = table.boxes[its], [table.classes[label] for label in table.label[its]]
        boxes = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
        drawn.append(draw_boxes(image, boxes, labels, [colors[label] for label in labels]))
        titles.append(f"{table.name}: {os.path.basename(table.file_names[number])}")
        if len(drawn) == MAX_DRAWN:
            break
    return drawn, titles


def chosen_images(tables, names):
    """Images as (table, number): first those that show most classes not shown yet, then others, evenly."""
    shown = []
    for table in tables:
        has = np.zeros((len(table.file_names), len(names)), dtype=bool)
        has[table.image, [names.index(table.classes[label]) for label in table.label]] = True
        shown.append(has)
    shown = np.concatenate(shown) if shown else np.zeros((0, 0), dtype=bool)
    numbers = [(table, number) for table in tables for number in range(len(table.file_names))]
    new, order = shown.copy(), []
    while new.any():
        order.append(int(new.sum(1).argmax()))
        new[:, new[order[-1]]] = False
    others = np.flatnonzero(shown.any(1))
    # More than are drawn, for those that cannot be read.
    for number in (MAX_DRAWN - len(order), len(others)):
        order += others[np.linspace(0, len(others) - 1, min(len(others), max(0, number))).astype(int)].tolist()
    return [numbers[i] for i in dict.fromkeys(order)]


def plot(tables, histograms, levels):
    """matplotlib figure: objects by class, the histograms, and positives by level."""
    figure = Figure(figsize=(13, 7), dpi=100, layout="constrained")
    panels = figure.subplots(2, 3).flatten()
    names = list(dict.fromkeys(name for table in tables for name in table.classes))
    below = np.zeros(len(names))
    for table in tables:
        per_class = np.bincount(table.label, minlength=len(table.classes))
        counts = np.array([per_class[table.classes.index(name)] if name in table.classes else 0 for name in names])
        panels[0].bar(range(len(names)), counts, bottom=below, label=table.name)
        below += counts
    if len(names) <= MAX_NAMED:
        panels[0].set_xticks(range(len(names)), names, rotation=90 if len(names) > 6 else 0, fontsize=8)
    panels[0].set_title("Objects by class", fontsize=10)
    if tables:
        panels[0].legend(frameon=False)
    for axes, (title, histogram) in zip(panels[1:5], histograms.items(), strict=True):
        axes.bar(range(len(histogram.counts)), histogram.counts, width=0.9, color="C2")
        axes.set_xticks(range(len(histogram.labels)), histogram.labels, rotation=30, ha="right", fontsize=8)
        axes.set_title(title.replace(", as COCO calls them", "").replace(": ", "\n"), fontsize=10)
    panels[5].bar(levels.names, levels.positives.sum(0), width=0.9, color="C3")
    panels[5].set_title(f"Positives of {levels.rule} by level", fontsize=10)
    for axes in panels:
        axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        axes.spines[["top", "right"]].set_visible(False)
    return figure


if __name__ == "__main__":
    with one_line_errors():
        raise SystemExit(main(parse_with_opts(get_parser())))
