"""Draw the positives of label assignment rules, and plot positives per object by size and shape (section 3.2).

    atss assignments --config-file atss_R_50_FPN_1x.yaml --output drawn/

draws some images of the dataset, one column per rule and one row per level, and writes positives.png and positives.csv
for all of its objects. No weights are needed.
"""

import argparse
import csv
import os
from itertools import islice

import cv2
import numpy as np
import torch
from detectron2.data import DatasetCatalog
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, SymmetricalLogLocator
from PIL import Image
from tabulate import tabulate

from ..config import load_config, parse_with_opts
from ..data import read_dataset
from ..data.image_io import read_image
from ..data.mapper import check_size
from ..errors import InputError, one_line_errors
from ..modeling.assigners import ASSIGNER_REGISTRY
from ..modeling.head import build_assigner
from ..study.positives import Bin, Geometry, binned, count_positives, on_cpu

# Okabe and Ito's palette for colour-blind readers; colours that stand out from photographs come first.
COLORS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
# Opacity of the image, which is drawn in grey: colours are for objects only.
IMAGE_ALPHA = 0.6
# Square root of a panel's area.
PANEL_INCHES = 2.4
DPI = 120
# Diameter of the dots as a fraction of the distance between anchors, and its limits in points.
DOT, MIN_DOT, MAX_DOT = 0.75, 1.1, 4.0
# Panels with at most this many positives also show the anchor boxes.
MAX_OUTLINED = 12
# Bins with fewer objects are not plotted.
MIN_PLOTTED = 5
# COCO's limits of small and medium areas, in pixels of the original image.
SMALL, MEDIUM = 32**2, 96**2


def get_parser():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    rules = [name for name, _ in ASSIGNER_REGISTRY]
    parser.add_argument("--config-file", required=True, metavar="FILE", help="path to config file")
    parser.add_argument("--dataset", metavar="NAME", help="default: the first of DATASETS.TEST")
    parser.add_argument("--rules", nargs="+", default=rules, metavar="RULE", help=f"default: {' '.join(rules)}")
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument("--images", type=int, default=4, metavar="N", help="draw the first N images with objects")
    chosen.add_argument("--file-name", nargs="+", metavar="NAME", help="draw these images of the dataset")
    parser.add_argument("--output", required=True, metavar="DIR", help="folder for the images")
    parser.add_argument("--no-plot", action="store_true", help="draw images only")
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="config keys and values")
    return parser


def main(args):
    known = [name for name, _ in ASSIGNER_REGISTRY]
    for rule in args.rules:
        if rule not in known:
            raise InputError(f"--rules: {rule!r} is not one of {', '.join(known)}")
    cfg = load_config(args.config_file, args.opts, read_datasets=False)
    records = read_dataset(dataset_of(cfg, args.dataset))
    geometry = Geometry(cfg)
    rules = {rule.removesuffix("Assigner"): build_assigner(on_cpu(cfg, rule)) for rule in args.rules}
    with_objects = (record for record in records if len(geometry.boxes(record)))
    chosen = choose(records, args.file_name) if args.file_name else list(islice(with_objects, args.images))
    try:
        os.makedirs(args.output, exist_ok=True)
    except OSError as error:
        raise InputError(f"--output {args.output}: cannot make this folder ({error.strerror})") from error
    for number, record in enumerate(chosen):
        stem = os.path.splitext(os.path.basename(record["file_name"]))[0]
        path = os.path.join(args.output, f"{number}_{stem}.png")
        levels = [name.upper() for name in cfg.MODEL.ATSS.IN_FEATURES]
        save_small(draw_assignments(record, geometry, rules, levels), path)
        print(path)
    if not args.no_plot:
        positives = {name: count_positives(geometry, records, assigner) for name, assigner in rules.items()}
        write_bins(positives, os.path.join(args.output, "positives.csv"))
        typical = 0.2 * cfg.MODEL.ATSS.TOPK * geometry.num_per_cell * geometry.num_levels
        plot(positives, typical).savefig(os.path.join(args.output, "positives.png"))
        print(table(positives))


def dataset_of(cfg, name):
    """The dataset to use: `name`, or the first of DATASETS.TEST."""
    if not name and not cfg.DATASETS.TEST:
        raise InputError("--dataset: name one, DATASETS.TEST has none")
    name = name or cfg.DATASETS.TEST[0]
    if name not in DatasetCatalog.list():
        raise InputError(f"--dataset: there is no dataset named {name!r}; register yours with DATASETS.REGISTER")
    return name


def choose(records, file_names):
    """The images with these names, with or without their folder."""
    chosen = []
    for name in file_names:
        found = [r for r in records if name in (r["file_name"], os.path.basename(r["file_name"]))]
        if not found:
            raise InputError(f"--file-name: the dataset has no image {name!r}")
        chosen += found
    return chosen


def draw_assignments(record, geometry, rules, levels):
    """Draw the positives of an image, one column per rule and one row per level that has any; return the figure.

    Args:
        record: dict of the image in Detectron2's standard format.
        geometry: `Geometry` of the detector.
        rules: dict from name to assigner.
        levels: names of the levels, finest first.

    Raises:
        InputError: the image is missing, cannot be read, or does not have the size in its dict.
    """
    image = read_image(record["file_name"])
    check_size(record, image)
    image = cv2.cvtColor(geometry.resize(record).apply_image(image), cv2.COLOR_BGR2GRAY)
    boxes, grid = geometry.boxes(record), geometry.grid(record)
    matches = {name: assigner(grid, [boxes])[0].split(grid.level_sizes) for name, assigner in rules.items()}
    anchors = grid.boxes().split(grid.level_sizes)
    used = [n for n in range(len(levels)) if any((by_level[n] >= 0).any() for by_level in matches.values())] or [0]

    inches_a_pixel = PANEL_INCHES / (image.shape[0] * image.shape[1]) ** 0.5
    width, height = image.shape[1] * inches_a_pixel, image.shape[0] * inches_a_pixel
    size = (width * len(rules) + 0.4, height * len(used) + 0.5)
    figure = Figure(figsize=size, dpi=DPI, layout="constrained")
    panels = figure.subplots(len(used), len(rules), squeeze=False)
    for column, (name, by_level) in enumerate(matches.items()):
        total = sum(int((level >= 0).sum()) for level in by_level)
        panels[0, column].set_title(f"{name}\n{total} positives", fontsize=10)
        for row, n in enumerate(used):
            dot = min(max(DOT * 72 * inches_a_pixel * grid.strides[n], MIN_DOT), MAX_DOT)
            draw_panel(panels[row, column], image, boxes, anchors[n], by_level[n], dot)
    for row, n in enumerate(used):
        panels[row, 0].set_ylabel(f"{levels[n]}, stride {grid.strides[n]}", fontsize=10)
    return figure


def draw_panel(axes, image, boxes, anchors, matches, dot):
    """Draw one level of one rule: ground truth boxes with positives on it are solid, the others dotted."""
    axes.imshow(image, cmap="gray", vmin=0, vmax=255, alpha=IMAGE_ALPHA)
    axes.set(xticks=[], yticks=[], xlim=(0, image.shape[1]), ylim=(image.shape[0], 0))
    positive = matches >= 0
    for index, box in enumerate(boxes.tolist()):
        solid = (matches == index).any()
        axes.add_patch(outline(box, color_of(index), 1.3 if solid else 0.9, "-" if solid else ":"))
    matched, anchors = matches[positive].tolist(), anchors[positive]
    if len(matched) <= MAX_OUTLINED:
        for gt, anchor in zip(matched, anchors.tolist(), strict=True):
            axes.add_patch(outline(anchor, color_of(gt), 0.7, "-", alpha=0.45))
    x, y = ((anchors[:, :2] + anchors[:, 2:]) / 2).t().tolist()
    axes.scatter(x, y, s=dot**2, c=[color_of(gt) for gt in matched], linewidths=0, zorder=3)
    plate = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
    axes.text(0.02, 0.03, str(len(matched)), transform=axes.transAxes, fontsize=9, bbox=plate)


def outline(box, color, width, style, alpha=1.0):
    x1, y1, x2, y2 = box
    return Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, ec=color, lw=width, ls=style, alpha=alpha)


def color_of(index):
    return COLORS[index % len(COLORS)]


def save_small(figure, path):
    """Write a PNG with 256 colours, half of them greys, which is far smaller than in full colour."""
    figure.savefig(path)
    shades = [LinearSegmentedColormap.from_list("", ["0.8", color])(np.linspace(0.1, 1, 20)) for color in COLORS[:-1]]
    greys = LinearSegmentedColormap.from_list("", ["black", "white"])(np.linspace(0, 1, 136))
    palette = Image.new("P", (1, 1))
    palette.putpalette((np.concatenate([greys, *shades])[:, :3] * 255).round().astype(np.uint8).tobytes())
    with Image.open(path) as image:
        small = image.convert("RGB").quantize(palette=palette, dither=Image.Dither.NONE)
    small.save(path, optimize=True)


def bins_of(positives):
    """The `Bin`s of `Positives`, by name of the axis."""
    return {
        "size": binned(positives.sides(), positives.counts),
        "aspect ratio": binned(positives.aspect_ratios(), positives.counts),
    }


def write_bins(positives, path):
    """Write the data of `plot` as CSV, one line per rule, axis and bin."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["rule", "axis", *Bin._fields])
        for name, of_rule in positives.items():
            for axis, bins in bins_of(of_rule).items():
                writer.writerows([name, axis, *(round(x, 4) for x in bin)] for bin in bins)


def plot(positives, typical):
    """Plot positives per object against size and aspect ratio: means, and bands between the quartiles.

    `positives` has the `Positives` of every rule by its name. `typical`, the number that section 3.2 expects for ATSS,
    0.2 k L (times A), is drawn as a dashed line.
    """
    figure = Figure(figsize=(11, 4.2), dpi=DPI, layout="constrained")
    panels = dict(zip(("size", "aspect ratio"), figure.subplots(1, 2, sharey=True), strict=True))
    for number, (name, of_rule) in enumerate(positives.items()):
        for axis, bins in bins_of(of_rule).items():
            bins = [bin for bin in bins if bin.objects >= MIN_PLOTTED]
            middle = [(bin.low * bin.high) ** 0.5 for bin in bins]
            style = {"color": color_of(number), "marker": MARKERS[number % len(MARKERS)], "ms": 4, "lw": 1.6}
            panels[axis].plot(middle, [bin.mean for bin in bins], label=name, **style)
            quartiles = [bin.lower_quartile for bin in bins], [bin.upper_quartile for bin in bins]
            panels[axis].fill_between(middle, *quartiles, color=color_of(number), alpha=0.12, lw=0)
    for axes in panels.values():
        axes.axhline(typical, color="0.35", ls="--", lw=1, zorder=1, label=f"0.2 k L = {typical:g}")
        axes.set_xscale("log", base=2)
        axes.set_yscale("symlog", linthresh=1)
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}" if x >= 1 else f"1/{1 / x:g}"))
        axes.yaxis.set_major_locator(SymmetricalLogLocator(base=10, linthresh=1, subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
        axes.grid(alpha=0.25)
    panels["size"].set(
        xlabel="square root of the object's area, in pixels of the resized image", ylabel="positives per object"
    )
    panels["aspect ratio"].set(xlabel="height / width of the object")
    panels["size"].legend(frameon=False, fontsize=9)
    return figure


def table(positives):
    """Text with one line per rule."""
    rows = []
    for name, of_rule in positives.items():
        counts, areas = of_rule.counts.double(), of_rule.widths * of_rule.heights / of_rule.scales**2
        small, large = areas < SMALL, areas >= MEDIUM
        groups = torch.ones_like(small), small, ~small & ~large, large
        means = [counts[group].mean().item() for group in groups]
        rows.append([name, len(counts), *means, 100 * (counts == 0).double().mean().item()])
    columns = ["rule", "objects", "mean", "small", "medium", "large", "without %"]
    return (
        tabulate(rows, columns, floatfmt=".1f")
        + "\nPositives per object; small, medium and large by the area of its box in the original image (32^2, 96^2);"
        "\nwithout %: objects without positives."
    )


def run(arguments=None):
    with one_line_errors():
        main(parse_with_opts(get_parser(), arguments))
