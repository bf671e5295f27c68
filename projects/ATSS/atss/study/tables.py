"""The tables of the paper's experiments: every row as the config keys of its system, with the paper's results.

The paper's results are on COCO minival, with ResNet-50 and 90k iterations. Equal systems have equal settings in all
tables.
"""

from functools import partial
from typing import NamedTuple

METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl")


class Row(NamedTuple):
    """A system of the paper."""

    name: str
    settings: dict  # from config key to value
    paper: dict  # the paper's results, from metric to value
    x: float | None = None  # place on the x axis if the table is a curve


class Table(NamedTuple):
    """A table of the paper."""

    number: int
    title: str
    rows: list
    axis: str | None = None  # label of the x axis if the table is a curve


def settings(assigner, **keys):
    """Settings of a system with all improvements of Table 1 and one anchor of eight strides, changed by `keys`."""
    keys = {
        "ASSIGNER": assigner,
        "BOX_CODING": "box",
        "NORM": "GN",
        "CLASS_LOSS": "focal",
        "BOX_LOSS": "giou",
        "BOX_LOSS_WEIGHT": 2.0,
        "CENTER_IN_BOX": assigner == "IoUAssigner",
        "CENTERNESS": True,
        "LEVEL_SCALARS": True,
        "TOPK": 9,
        "ANCHOR_SCALE": 8.0,
        "ASPECT_RATIOS": [1.0],
        "SCALES_PER_OCTAVE": 1,
        **keys,
    }
    return {f"MODEL.ATSS.{key}": value for key, value in keys.items()}


def ap(*results):
    return dict(zip(METRICS, results, strict=False))


iou = partial(settings, "IoUAssigner")
scale_range = partial(settings, "ScaleRangeAssigner")
center_sampling = partial(settings, "CenterSamplingAssigner")
atss = partial(settings, "ATSSAssigner")

# The improvements of Table 1, undone from the last to the first.
NO_SCALAR = {"LEVEL_SCALARS": False}
NO_CENTERNESS = {**NO_SCALAR, "CENTERNESS": False}
NO_CENTER_IN_BOX = {**NO_CENTERNESS, "CENTER_IN_BOX": False}
NO_GIOU = {**NO_CENTER_IN_BOX, "BOX_LOSS": "smooth_l1", "BOX_LOSS_WEIGHT": 1.0}
NO_IMPROVEMENT = {**NO_GIOU, "NORM": ""}

# What came after the paper: quality focal loss, and distribution focal loss in addition.
QUALITY = {"CENTERNESS": False, "CLASS_LOSS": "quality_focal"}
DISTRIBUTION = {**QUALITY, "BOX_CODING": "distribution"}

# The dynamic head (Dai et al. 2021) in the place of the towers.
DYNAMIC_HEAD = {"DYHEAD_BLOCKS": 6, "NUM_CONVS": 0, "PREDICTOR_KERNEL": 1}

# Anchors per location; RetinaNet's three sizes begin at four strides.
SCALES = {"ANCHOR_SCALE": 4.0, "SCALES_PER_OCTAVE": 3}
RATIOS = {"ASPECT_RATIOS": [0.5, 1.0, 2.0]}

K = {3: 38.0, 5: 38.8, 7: 39.1, 9: 39.3, 11: 39.1, 13: 39.0, 15: 39.1, 17: 39.2, 19: 38.9}
ANCHOR_SIDES = {5.0: 39.0, 6.0: 39.2, 7.0: 39.3, 8.0: 39.3, 9.0: 38.9}
# Height to width here; if the paper means width to height, rows change places with their mirrors.
ASPECT_RATIOS = {"1:4": (1 / 4, 39.1), "1:2": (1 / 2, 39.0), "1:1": (1.0, 39.3), "2:1": (2.0, 39.3), "4:1": (4.0, 39.1)}

TABLES = {table.number: table for table in [
    Table(1, "From RetinaNet to FCOS", [
        Row("RetinaNet (#A=1)", iou(**NO_IMPROVEMENT), ap(32.5)),
        Row("+ GroupNorm", iou(**NO_GIOU), ap(33.4)),
        Row("+ GIoU loss", iou(**NO_CENTER_IN_BOX), ap(34.9)),
        Row("+ centre in GT box", iou(**NO_CENTERNESS), ap(35.3)),
        Row("+ centerness", iou(**NO_SCALAR), ap(36.8)),
        Row("+ scalar", iou(), ap(37.0)),
        Row("FCOS", scale_range(BOX_CODING="point"), ap(37.8)),
    ]),
    Table(2, "Label assignment and regression starting status", [
        Row("IoU, from a box", iou(), ap(37.0)),
        Row("IoU, from a point", iou(BOX_CODING="point"), ap(36.9)),
        Row("spatial and scale constraint, from a box", scale_range(), ap(37.8)),
        Row("spatial and scale constraint, from a point", scale_range(BOX_CODING="point"), ap(37.8)),
    ]),
    Table(3, "ATSS", [
        Row("RetinaNet (#A=1)", iou(), ap(37.0, 55.1, 39.9, 21.4, 41.2, 48.6)),
        Row("RetinaNet (#A=1) + ATSS", atss(), ap(39.3, 57.5, 42.8, 24.3, 43.3, 51.3)),
        Row("FCOS", scale_range(BOX_CODING="point"), ap(37.8, 55.6, 40.7, 22.1, 41.8, 48.8)),
        Row("FCOS + centre sampling", center_sampling(BOX_CODING="point"), ap(38.6, 57.4, 41.4, 22.3, 42.5, 49.8)),
        Row("FCOS + ATSS", atss(BOX_CODING="point"), ap(39.2, 57.3, 42.4, 22.7, 43.1, 51.5)),
    ]),
    Table(4, "Candidates per level", [Row(f"k = {k}", atss(TOPK=k), ap(result), k) for k, result in K.items()], "k"),
    Table(5, "Side of the anchor", [
        Row(f"{side:g} strides", atss(ANCHOR_SCALE=side), ap(result), side) for side, result in ANCHOR_SIDES.items()
    ], "side of the anchor in strides"),
    Table(6, "Aspect ratio of the anchor", [
        Row(name, atss(ASPECT_RATIOS=[ratio]), ap(result), ratio) for name, (ratio, result) in ASPECT_RATIOS.items()
    ], "aspect ratio of the anchor"),
    Table(7, "Several anchors per location", [
        Row("RetinaNet (#A=9)", iou(**NO_IMPROVEMENT, **SCALES, **RATIOS), ap(36.3)),
        Row("+ improvements, 3 scales, 3 ratios", iou(**SCALES, **RATIOS), ap(38.4)),
        Row("+ improvements + ATSS, 3 scales, 3 ratios", atss(**SCALES, **RATIOS), ap(39.2)),
        Row("+ improvements + ATSS, 3 scales, 1 ratio", atss(**SCALES), ap(39.3)),
        Row("+ improvements + ATSS, 1 scale, 3 ratios", atss(**RATIOS), ap(39.2)),
        Row("+ improvements + ATSS, 1 scale, 1 ratio", atss(), ap(39.3)),
    ]),
    # The results of arXiv 2006.04388, which repeats those of ATSS: its tables 1 and 6.
    Table(8, "After ATSS: Generalized Focal Loss, results of its paper", [
        Row("ATSS", atss(), ap(39.2, 57.4, 42.2, 23.0, 42.8, 51.1)),
        Row("+ quality focal loss", atss(**QUALITY), ap(39.9, 58.5, 43.0, 22.4, 43.9, 52.7)),
        Row("+ distribution focal loss", atss(**DISTRIBUTION), ap(40.2, 58.6, 43.4, 23.0, 44.3, 53.0)),
        # Published by microsoft/DynamicHead, on the first row's model.
        Row("ATSS + dynamic head", atss(**DYNAMIC_HEAD), ap(42.4)),
    ]),
]}  # fmt: skip
