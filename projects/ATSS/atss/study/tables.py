"""The tables of the paper's experiments: every row as the settings that make its system, and the paper's figures.

COCO minival, ResNet-50, 90k iterations. Equal systems have equal settings, whichever table they stand in.
"""

from typing import NamedTuple

METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl")


class Row(NamedTuple):
    """A system.

    name: as the paper calls it.
    settings: dict from config key to value.
    paper: dict from metric to the paper's figure.
    x: its place where the table is a curve, else None.
    """

    name: str
    settings: dict
    paper: dict
    x: float | None = None


class Table(NamedTuple):
    """A table of the paper; `axis` names what varies where the table is a curve, else None."""

    number: int
    title: str
    rows: list
    axis: str | None = None


def settings(assigner, **keys):
    """Settings of a system with all improvements of Table 1, one anchor of eight strides, and `keys` besides."""
    keys = {
        "ASSIGNER": assigner,
        "BOX_CODING": "box",
        "NORM": "GN",
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


def iou(**keys):
    return settings("IoUAssigner", **keys)


def scale_range(**keys):
    return settings("ScaleRangeAssigner", **keys)


def atss(**keys):
    return settings("ATSSAssigner", **keys)


# The improvements of Table 1, undone from the last to the first.
NO_SCALAR = {"LEVEL_SCALARS": False}
NO_CENTERNESS = {**NO_SCALAR, "CENTERNESS": False}
NO_CENTER_IN_BOX = {**NO_CENTERNESS, "CENTER_IN_BOX": False}
NO_GIOU = {**NO_CENTER_IN_BOX, "BOX_LOSS": "smooth_l1", "BOX_LOSS_WEIGHT": 1.0}
NO_IMPROVEMENT = {**NO_GIOU, "NORM": ""}

# Anchors of a location: RetinaNet's three sizes begin at four strides.
THREE_SCALES = {"ANCHOR_SCALE": 4.0, "SCALES_PER_OCTAVE": 3}
THREE_RATIOS = {"ASPECT_RATIOS": [0.5, 1.0, 2.0]}


def ap(*figures):
    return dict(zip(METRICS, figures, strict=False))


TABLES = {
    table.number: table
    for table in (
        Table(
            1,
            "From RetinaNet to FCOS",
            [
                Row("RetinaNet (#A=1)", iou(**NO_IMPROVEMENT), ap(32.5)),
                Row("+ GroupNorm", iou(**NO_GIOU), ap(33.4)),
                Row("+ GIoU loss", iou(**NO_CENTER_IN_BOX), ap(34.9)),
                Row("+ centre in GT box", iou(**NO_CENTERNESS), ap(35.3)),
                Row("+ centerness", iou(**NO_SCALAR), ap(36.8)),
                Row("+ scalar", iou(), ap(37.0)),
                Row("FCOS", scale_range(BOX_CODING="point"), ap(37.8)),
            ],
        ),
        Table(
            2,
            "Rule for positives against what the regression starts from",
            [
                Row("IoU, from a box", iou(), ap(37.0)),
                Row("IoU, from a point", iou(BOX_CODING="point"), ap(36.9)),
                Row("spatial and scale constraint, from a box", scale_range(), ap(37.8)),
                Row("spatial and scale constraint, from a point", scale_range(BOX_CODING="point"), ap(37.8)),
            ],
        ),
        Table(
            3,
            "ATSS",
            [
                Row("RetinaNet (#A=1)", iou(), ap(37.0, 55.1, 39.9, 21.4, 41.2, 48.6)),
                Row("RetinaNet (#A=1) + ATSS", atss(), ap(39.3, 57.5, 42.8, 24.3, 43.3, 51.3)),
                Row("FCOS", scale_range(BOX_CODING="point"), ap(37.8, 55.6, 40.7, 22.1, 41.8, 48.8)),
                Row(
                    "FCOS + centre sampling",
                    settings("CenterSamplingAssigner", BOX_CODING="point"),
                    ap(38.6, 57.4, 41.4, 22.3, 42.5, 49.8),
                ),
                Row("FCOS + ATSS", atss(BOX_CODING="point"), ap(39.2, 57.3, 42.4, 22.7, 43.1, 51.5)),
            ],
        ),
        Table(
            4,
            "Candidates a level",
            [
                Row(f"k = {k}", atss(TOPK=k), ap(figure), k)
                for k, figure in zip(
                    range(3, 20, 2), (38.0, 38.8, 39.1, 39.3, 39.1, 39.0, 39.1, 39.2, 38.9), strict=True
                )
            ],
            "k",
        ),
        Table(
            5,
            "Side of the anchor",
            [
                Row(f"{side} strides", atss(ANCHOR_SCALE=float(side)), ap(figure), side)
                for side, figure in zip(range(5, 10), (39.0, 39.2, 39.3, 39.3, 38.9), strict=True)
            ],
            "side of the anchor in strides",
        ),
        Table(
            6,
            "Aspect ratio of the anchor",
            [
                # Height to width here; where the paper means width to height, rows change places with their mirrors.
                Row(name, atss(ASPECT_RATIOS=[ratio]), ap(figure), ratio)
                for name, ratio, figure in (
                    ("1:4", 0.25, 39.1),
                    ("1:2", 0.5, 39.0),
                    ("1:1", 1.0, 39.3),
                    ("2:1", 2.0, 39.3),
                    ("4:1", 4.0, 39.1),
                )
            ],
            "aspect ratio of the anchor",
        ),
        Table(
            7,
            "Several anchors per location",
            [
                Row("RetinaNet (#A=9)", iou(**NO_IMPROVEMENT, **THREE_SCALES, **THREE_RATIOS), ap(36.3)),
                Row("+ improvements, 3 scales, 3 ratios", iou(**THREE_SCALES, **THREE_RATIOS), ap(38.4)),
                Row("+ improvements + ATSS, 3 scales, 3 ratios", atss(**THREE_SCALES, **THREE_RATIOS), ap(39.2)),
                Row("+ improvements + ATSS, 3 scales, 1 ratio", atss(**THREE_SCALES), ap(39.3)),
                Row("+ improvements + ATSS, 1 scale, 3 ratios", atss(**THREE_RATIOS), ap(39.2)),
                Row("+ improvements + ATSS, 1 scale, 1 ratio", atss(), ap(39.3)),
            ],
        ),
    )
}
