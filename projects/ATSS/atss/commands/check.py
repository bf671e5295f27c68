"""Check a dataset before training: print its content, its problems, and the label assignment of its objects.

    atss check cells/ --output drawn/

reads a folder in COCO, YOLO or Pascal VOC format and opens all of its images; with --output it draws some of them with
their boxes. Without a folder it checks DATASETS.TRAIN and DATASETS.TEST of --config-file. The exit status is 1 if
training would refuse the dataset.
"""

import argparse
import os
from itertools import pairwise

import numpy as np
import torch
from detectron2.data import DatasetCatalog
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image
from tabulate import tabulate

from ..config import load_config, parse_with_opts
from ..data import read_dataset
from ..data.catalog import source_of, table_of
from ..data.coco import classes_of, dicts_of
from ..data.entries import sound_content
from ..data.folders import find_dataset
from ..data.image_inspection import inspect_images
from ..data.image_io import read_image
from ..data.inspection import Table, inspect, unnamed_images
from ..data.problems import errors_of, located, problems_of
from ..errors import InputError, one_line_errors
from ..study.positives import Geometry, on_cpu
from ..utils.drawing import class_colors, draw_boxes, mosaic

CONFIG = "atss_R_50_FPN_1x.yaml"
# Lower edges of the histograms' bins. Sizes are square roots of areas in pixels, SIZES those of COCO.
SIZES = {0: "small", 32: "medium", 96: "large"}
SIDES = (0, 8, 16, 32, 64, 96, 128, 256, 512)
RATIOS = (0, 1 / 8, 1 / 4, 1 / 2, 1 / 1.25, 1.25, 2, 4, 8)
PER_IMAGE = (0, 1, 2, 3, 5, 10, 20, 50, 100)
NUMBERS = ["0", "1", "2", "3 to 4", "5 to 9", "10 to 19", "20 to 49", "50 to 99", "100 and more"]
BAR = 40  # characters of the longest bar
MAX_ASSIGNED = 1000  # images whose anchors are assigned
MAX_DRAWN, COLUMNS = 12, 4  # images that are drawn
MAX_NAMED = 40  # classes with a name below their bar
ORDER = ("error", "warning", "note")


def get_parser():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", metavar="FOLDER", help="default: the datasets of the config")
    parser.add_argument("--output", metavar="DIR", help="folder for labels.jpg and histograms.png")
    parser.add_argument("--config-file", default=CONFIG, metavar="FILE", help=f"default: {CONFIG}")
    parser.add_argument("--quick", action="store_true", help="do not open the images")
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="config keys and values")
    return parser


def main(args):
    """Return the exit status."""
    # With the number and names of the classes given, loading the config does not read the datasets.
    settled = ["MODEL.DEVICE", "cpu", "MODEL.ATSS.NUM_CLASSES", "1", "MODEL.ATSS.CLASS_NAMES", "['any']"]
    cfg = load_config(args.config_file, [*args.opts, *settled], read_datasets=False)
    folder = args.folder or cfg.DATASETS.FOLDER
    sources, to_learn = find_sources(folder, cfg)
    tables, records = [], []
    problems = missing_splits(folder, sources) if folder else []
    for name, source in sources.items():
        table, dicts, found = read_one(name, source)
        problems += located(name, found)
        if table:
            tables.append(table)
            records += dicts
    problems += inspect(tables, to_learn) + unnamed_images(tables)
    if not args.quick:
        # inspect_images finds shared images by their bytes.
        problems = [problem for problem in problems if problem.kind != "images in both"] + inspect_images(tables)

    print(f"\n{contents(tables)}")
    histograms = histograms_of(tables)
    for title, histogram in histograms.items():
        print(f"\n{title}\n{bars(histogram)}")
    positives, levels = assign_levels(cfg, records)
    print(f"\n{positives}")
    print(f"\n{listing(problems)}")
    if args.output:
        write(args.output, tables, histograms, levels)
    return 1 if errors_of(problems) else 0


def find_sources(folder, cfg):
    """dict from dataset name to `Source`, or None if it has none; and the names of the datasets to train on."""
    if folder:
        dataset = find_dataset(folder)
        print(f"{folder}: {dataset.layout}, with {', '.join(dataset.splits)}")
        sources = {f"{dataset.name}_{split}": source for split, source in dataset.splits.items()}
        return sources, [f"{dataset.name}_train"]
    names = list(dict.fromkeys((*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST)))
    if not names:
        raise InputError("name a folder, or datasets in DATASETS.TRAIN and DATASETS.TEST")
    for name in names:
        if name not in DatasetCatalog.list():
            raise InputError(f"DATASETS: there is no dataset named {name!r}; docs/own_data.md says how to register it")
    return {name: source_of(name) for name in names}, cfg.DATASETS.TRAIN


def missing_splits(folder, names):
    """Problems of a folder that has no split to train on, or none to evaluate on."""
    splits = {name.rpartition("_")[2] for name in names}
    has = [f"it has {', '.join(sorted(splits))}"]
    return [
        *problems_of("no split train", [] if "train" in splits else has, 1, where=folder),
        *problems_of("no split val or test", [] if splits & {"val", "test"} else has, 1, where=folder),
    ]


def read_one(name, source):
    """`Table` of a dataset's valid entries, None if nothing can be read; their dicts; and a list of `Problem`."""
    try:
        if source is None:
            dicts = read_dataset(name)
            return table_of(name, dicts), dicts, []
        content = source.read()
        if source.path != content.image_folder:
            print(f"{name}: {content.file}, images in {content.image_folder}")
    except InputError as error:
        return None, [], problems_of("dataset that cannot be read", [error], 1)
    coco, problems = sound_content(content.coco)
    dicts = dicts_of(coco, content.image_folder)
    return Table.of(name, dicts, classes_of(coco).values()), dicts, content.problems + problems


def names_of(tables):
    """Names of the classes of all datasets, each once."""
    return list(dict.fromkeys(name for table in tables for name in table.classes))


def numbers_in(names, table):
    """(K,) int, index of each class of a dataset in `names`."""
    return np.array([names.index(name) for name in table.classes], dtype=int)


def contents(tables):
    """Tables of the numbers of images and objects per dataset and per class, as text."""
    rows = []
    for table in tables:
        images, objects = len(table.file_names), len(table.boxes)
        empty = images - len(np.unique(table.image))
        rows.append([table.name, images, empty, objects, objects / max(1, images), int(table.crowd.sum())])
    head = ["dataset", "images", "without objects", "objects", "per image", "crowd regions"]
    class_rows = []
    for name in names_of(tables):
        row = [name]
        for table in tables:
            label = table.classes.index(name) if name in table.classes else -1
            images = table.image[table.label == label]
            row += [len(images), len(np.unique(images))]
        class_rows.append(row)
    class_head = ["class", *(f"{table.name}\n{what}" for table in tables for what in ("objects", "images"))]
    of_classes = tabulate(class_rows, class_head, disable_numparse=[0]) if class_rows else "no classes"
    return f"{tabulate(rows, head, floatfmt='.1f')}\n\n{of_classes}"


def histograms_of(tables):
    """dict from title to histogram (see `counted`) of all datasets together, without boxes without area."""
    boxes = np.concatenate([table.boxes[table.has_area()] for table in tables] or [np.empty((0, 4))])
    sides, ratios = np.sqrt(boxes[:, 2] * boxes[:, 3]), boxes[:, 3] / boxes[:, 2]
    per_image = [np.bincount(table.image, minlength=len(table.file_names)) for table in tables]
    sizes = [f"{name} ({limits})" for name, limits in zip(SIZES.values(), ranges(list(SIZES)), strict=True)]
    return {
        "Objects per image": counted(np.concatenate(per_image or [[]]), PER_IMAGE, NUMBERS),
        "Object sizes as in COCO: root of the area, in pixels": counted(sides, list(SIZES), sizes),
        "Object sizes: root of the area, in pixels": counted(sides, SIDES, ranges(SIDES)),
        "Object shapes: height / width": counted(ratios, RATIOS, ranges(RATIOS)),
    }


def counted(values, edges, labels):
    """dict from label to number of values; a bin includes its lower edge, and the last one has no upper edge."""
    counts, _ = np.histogram(values, [*edges, np.finfo(np.float64).max])
    return dict(zip(labels, counts.tolist(), strict=True))


def ranges(edges):
    """Labels of the bins with these lower edges."""
    texts = [f"{edge:g}" if edge >= 1 or edge == 0 else f"1/{1 / edge:g}" for edge in edges]
    return [f"{low} to {high}" for low, high in pairwise(texts)] + [f"{texts[-1]} and more"]


def bars(histogram):
    """The histogram as text, one line per bin."""
    most, wide = max([*histogram.values(), 1]), max(map(len, histogram))
    lines = []
    for label, count in histogram.items():
        bar = "█" * max(round(BAR * count / most), count > 0)
        lines.append(f"  {label:>{wide}} {count:>9,} {bar}".rstrip())
    return "\n".join(lines)


def assign_levels(cfg, records):
    """Positives per level of the objects of up to MAX_ASSIGNED images, evenly spaced in `records`.

    Returns a table as text, and a dict from title to histogram.
    """
    geometry = Geometry(on_cpu(cfg))
    records = [record for record in records if record["annotations"]]
    picked = np.linspace(0, len(records) - 1, min(len(records), MAX_ASSIGNED)).astype(int)
    names = [name.upper() for name in cfg.MODEL.ATSS.IN_FEATURES]
    positives = [np.empty((0, len(names)), dtype=np.int64)]
    for i in picked:
        boxes, grid = geometry.boxes(records[i]), geometry.grid(records[i])
        by_level = geometry.assigner(grid, [boxes])[0].split(grid.level_sizes)
        counts = [torch.bincount(matches[matches >= 0], minlength=len(boxes)) for matches in by_level]
        positives.append(torch.stack(counts, dim=1).numpy())
    positives = np.concatenate(positives)  # (G, L) of G objects and L levels
    counts = positives.sum(0), (positives > 0).sum(0)
    side = cfg.INPUT.MIN_SIZE_TEST or 800
    grid = geometry.grid({"height": side, "width": side})
    rows = []
    for name, stride, anchors, *of_level in zip(names, grid.strides, grid.cell_anchors, *counts, strict=True):
        sides = (anchors[:, 2:] - anchors[:, :2]).prod(1).sqrt().tolist()
        low, high = f"{min(sides):.0f}", f"{max(sides):.0f}"
        rows.append([name, stride, low if max(sides) - min(sides) < 1 else f"{low} to {high}", *of_level])
    head = ["level", "stride", "anchors' side", "positives", "objects with positives"]
    table = tabulate(rows, head, disable_numparse=[2], colalign=("left", "right", "right", "right", "right"))
    assigner, number, missed = cfg.MODEL.ATSS.ASSIGNER, len(positives), int((positives.sum(1) == 0).sum())
    some = f" of the {len(records):,} that have objects" if len(records) > len(picked) else ""
    text = (
        f"Positives that {assigner} assigns to {number:,} objects in {len(picked):,} images{some},\n"
        f"resized to {cfg.INPUT.MIN_SIZE_TEST} pixels (INPUT.MIN_SIZE_TEST), {cfg.INPUT.MAX_SIZE_TEST} at most\n"
        f"{table}\n{positives.sum() / max(1, number):.1f} positives per object; {missed:,} objects have none"
    )
    return text, {f"Positives of {assigner} per level": dict(zip(names, counts[0], strict=True))}


def listing(problems):
    """All problems as text, errors first, with examples and remedies."""
    numbers = {severity: sum(problem.severity == severity for problem in problems) for severity in ORDER}
    lines = [", ".join(f"{number} {severity}{'s' * (number != 1)}" for severity, number in numbers.items())]
    for problem in sorted(problems, key=lambda problem: ORDER.index(problem.severity)):
        lines.append(f"\n{problem.severity}: {problem.where}: {problem.kind}, {problem.extent()}")
        lines += [f"    {example}" for example in problem.examples]
        lines += ["    ..."] if problem.count > len(problem.examples) else []
        lines.append(f"  -> {problem.remedy}")
    return "\n".join(lines)


def write(output, tables, histograms, levels):
    """Write labels.jpg and histograms.png, and print where."""
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
    """Some images with their boxes, (H, W, 3) uint8, RGB, and their titles; images that cannot be read are skipped."""
    names = names_of(tables)
    colors = dict(zip(names, class_colors(len(names)), strict=True))
    drawn, titles = [], []
    for table, number in chosen_images(tables, names):
        try:
            image = read_image(table.file_names[number], "RGB")
        except InputError:
            continue
        inside = table.image == number
        boxes, labels = table.boxes[inside], [table.classes[label] for label in table.label[inside]]
        boxes = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
        drawn.append(draw_boxes(image, boxes, labels, [colors[label] for label in labels]))
        titles.append(f"{table.name}: {os.path.basename(table.file_names[number])}")
        if len(drawn) == MAX_DRAWN:
            break
    return drawn, titles


def chosen_images(tables, names):
    """List of (table, image index): images that together show every class, then others with objects, evenly spaced."""
    images = [(table, number) for table in tables for number in range(len(table.file_names))]
    shown, first = np.zeros((len(images), len(names)), dtype=bool), 0
    for table in tables:
        shown[first + table.image, numbers_in(names, table)[table.label]] = True
        first += len(table.file_names)
    new, order = shown.copy(), []
    while new.any():
        order.append(int(new.sum(1).argmax()))
        new[:, new[order[-1]]] = False
    others = np.flatnonzero(shown.any(1))
    # More than MAX_DRAWN, as some may be unreadable.
    for number in (MAX_DRAWN - len(order), len(others)):
        order += others[np.linspace(0, len(others) - 1, min(len(others), max(0, number))).astype(int)].tolist()
    return [images[i] for i in dict.fromkeys(order)]


def plot(tables, histograms, levels):
    """matplotlib figure of objects per class, the histograms, and positives per level."""
    figure = Figure(figsize=(13, 7), dpi=100, layout="constrained")
    panels = figure.subplots(2, 3).flatten()
    names = names_of(tables)
    below = np.zeros(len(names))
    for table in tables:
        per_class = np.bincount(numbers_in(names, table)[table.label], minlength=len(names))
        panels[0].bar(range(len(names)), per_class, bottom=below, label=table.name)
        below += per_class
    if len(names) <= MAX_NAMED:
        panels[0].set_xticks(range(len(names)), names, rotation=90 if len(names) > 6 else 0, fontsize=8)
    panels[0].set_title("Objects per class", fontsize=10)
    if tables:
        panels[0].legend(frameon=False)
    for axes, (title, histogram) in zip(panels[1:5], histograms.items(), strict=True):
        axes.bar(range(len(histogram)), histogram.values(), width=0.9, color="C2")
        axes.set_xticks(range(len(histogram)), histogram, rotation=30, ha="right", fontsize=8)
        axes.set_title(title.replace(": ", "\n"), fontsize=10)
    for title, histogram in levels.items():
        panels[5].bar(histogram.keys(), histogram.values(), width=0.9, color="C3")
        panels[5].set_title(title, fontsize=10)
    for axes in panels:
        axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def run(arguments=None):
    with one_line_errors():
        raise SystemExit(main(parse_with_opts(get_parser(), arguments)))
