"""Checks of a config: values that exist, and keys that fit each other."""

import inspect

import torch
from detectron2.config import CfgNode
from detectron2.layers import get_norm
from detectron2.modeling import BACKBONE_REGISTRY

from ..data import RESIZE_LIKE, SAMPLERS
from ..errors import InputError, first_line
from ..evaluation import MERGES
from ..modeling.assigners import ASSIGNER_REGISTRY, BACKENDS, MAX_TOPK, check_ranges
from ..modeling.head import ATSS_HEAD_REGISTRY
from .yaml_file import short


def check_config(cfg: CfgNode) -> None:
    """Check a config before anything is read or built; raises an InputError that names the key."""
    choices = {
        "MODEL.ATSS.BOX_LOSS": (cfg.MODEL.ATSS.BOX_LOSS, ("giou", "smooth_l1")),
        "MODEL.ATSS.BOX_CODING": (cfg.MODEL.ATSS.BOX_CODING, ("box", "point")),
        "MODEL.ATSS.ASSIGNER": (cfg.MODEL.ATSS.ASSIGNER, tuple(name for name, _ in ASSIGNER_REGISTRY)),
        "MODEL.ATSS.ASSIGNER_BACKEND": (cfg.MODEL.ATSS.ASSIGNER_BACKEND, BACKENDS),
        "MODEL.ATSS.PIXEL_EXTENT": (cfg.MODEL.ATSS.PIXEL_EXTENT, (0, 1)),
        "INPUT.FORMAT": (cfg.INPUT.FORMAT, ("BGR", "RGB")),
        "INPUT.RESIZE_LIKE": (cfg.INPUT.RESIZE_LIKE, RESIZE_LIKE),
        "TEST.AUG.MERGE": (cfg.TEST.AUG.MERGE, MERGES),
        "DATALOADER.SAMPLER_TRAIN": (cfg.DATALOADER.SAMPLER_TRAIN, SAMPLERS),
        "SOLVER.OPTIMIZER": (cfg.SOLVER.OPTIMIZER, ("SGD", "AdamW")),
        "MODEL.META_ARCHITECTURE": (cfg.MODEL.META_ARCHITECTURE, ("ATSS",)),
        "MODEL.BACKBONE.NAME": (cfg.MODEL.BACKBONE.NAME, tuple(name for name, _ in BACKBONE_REGISTRY)),
        "MODEL.ATSS.HEAD": (cfg.MODEL.ATSS.HEAD, tuple(name for name, _ in ATSS_HEAD_REGISTRY)),
    }
    for key, (value, allowed) in choices.items():
        if value not in allowed:
            raise InputError(f"{key}: {value!r} is not one of {', '.join(map(repr, allowed))}")
    if not 1 <= cfg.MODEL.ATSS.TOPK <= MAX_TOPK:
        raise InputError(f"MODEL.ATSS.TOPK: expected a number from 1 to {MAX_TOPK}, got {cfg.MODEL.ATSS.TOPK}")
    try:
        torch.device(cfg.MODEL.DEVICE)
    except RuntimeError as error:
        raise InputError(f"MODEL.DEVICE {short(cfg.MODEL.DEVICE)!r}: {first_line(error)}") from error
    if cfg.INPUT.MAX_PIXELS < 1:
        raise InputError(f"INPUT.MAX_PIXELS: expected a number of pixels, got {cfg.INPUT.MAX_PIXELS}")
    _check_numbers(cfg.MODEL.ATSS)
    _check_rule(cfg.MODEL.ATSS)
    _check_views(cfg.TEST.AUG)
    _check_training(cfg)


def _check_training(cfg):
    """Check the solver, and what depends on evaluations."""
    if not 0 <= cfg.SOLVER.EMA_DECAY < 1:
        raise InputError(f"SOLVER.EMA_DECAY: expected 0 or more and less than 1, got {cfg.SOLVER.EMA_DECAY}")
    limits = {
        "SOLVER.MAX_SKIPPED_BATCHES": cfg.SOLVER.MAX_SKIPPED_BATCHES,
        "DATALOADER.MAX_UNREADABLE": cfg.DATALOADER.MAX_UNREADABLE,
    }
    for key, number in limits.items():
        if number < 0:
            raise InputError(f"{key}: expected 0 or a number that may be skipped, got {number}")
    if cfg.SOLVER.EARLY_STOP < 0:
        raise InputError(f"SOLVER.EARLY_STOP: expected 0 or a number of evaluations, got {cfg.SOLVER.EARLY_STOP}")
    for key, wanted in (("TEST.KEEP_BEST", cfg.TEST.KEEP_BEST), ("SOLVER.EARLY_STOP", cfg.SOLVER.EARLY_STOP)):
        if wanted and cfg.TEST.EVAL_PERIOD < 1:
            raise InputError(f"{key} follows evaluations: set TEST.EVAL_PERIOD to the iterations between them")


def _check_numbers(atss):
    """Check the anchors and the normalisation."""
    sizes = {"ASPECT_RATIOS": atss.ASPECT_RATIOS, "SCALES_PER_OCTAVE": [atss.SCALES_PER_OCTAVE],
             "ANCHOR_SCALE": [atss.ANCHOR_SCALE], "NUM_CONVS": [atss.NUM_CONVS]}  # fmt: skip
    for key, values in sizes.items():
        if not values or not all(map(_is_positive, values)):
            raise InputError(f"MODEL.ATSS.{key}: expected positive numbers, got {atss[key]}")
    try:
        get_norm(atss.NORM, 32)
    except KeyError:
        raise InputError(f"MODEL.ATSS.NORM: Detectron2 has no normalisation {atss.NORM!r}; 'GN', say, or ''") from None


def _check_rule(atss):
    """Check that label assignment, anchors and box coding fit each other."""
    num_anchors = len(atss.ASPECT_RATIOS) * atss.SCALES_PER_OCTAVE
    if atss.BOX_CODING == "point" and num_anchors != 1:
        raise InputError(
            "MODEL.ATSS.BOX_CODING 'point' regresses from a location, which has one anchor then, but "
            f"MODEL.ATSS.ASPECT_RATIOS {atss.ASPECT_RATIOS} and MODEL.ATSS.SCALES_PER_OCTAVE {atss.SCALES_PER_OCTAVE} "
            f"make {num_anchors}"
        )
    thresholds = atss.IOU_THRESHOLDS
    if len(thresholds) != 2 or not all(map(_is_positive, thresholds)) or not thresholds[0] <= thresholds[1] <= 1:
        raise InputError(
            f"MODEL.ATSS.IOU_THRESHOLDS: expected [negative, positive], 0 < negative <= positive <= 1, got {thresholds}"
        )
    if "ranges" not in inspect.signature(ASSIGNER_REGISTRY.get(atss.ASSIGNER)).parameters:
        return
    if len(atss.SCALE_RANGES) != len(atss.IN_FEATURES):
        raise InputError(
            f"MODEL.ATSS.SCALE_RANGES has {len(atss.SCALE_RANGES)} ranges, but MODEL.ATSS.IN_FEATURES has "
            f"{len(atss.IN_FEATURES)} levels: {atss.ASSIGNER} needs one for each"
        )
    try:
        check_ranges(atss.SCALE_RANGES)
    except (TypeError, ValueError) as error:
        raise InputError(f"MODEL.ATSS.SCALE_RANGES: {first_line(error)}") from error


def _check_views(aug):
    """Check the scales of multi-scale testing and their box ranges."""
    if not aug.MIN_SIZES or not all(map(_is_positive, aug.MIN_SIZES)):
        raise InputError(f"TEST.AUG.MIN_SIZES: expected sizes in pixels, got {aug.MIN_SIZES}")
    if not all(map(_is_range, aug.BOX_RANGES)) or (aug.BOX_RANGES and len(aug.BOX_RANGES) != len(aug.MIN_SIZES)):
        raise InputError(
            "TEST.AUG.BOX_RANGES: expected [from, to] in pixels for each of the "
            f"{len(aug.MIN_SIZES)} scales of TEST.AUG.MIN_SIZES, or none at all, got {aug.BOX_RANGES}"
        )


def _is_range(value):
    return (
        isinstance(value, (list, tuple))
        and len(value) == 2
        and _is_positive(value[1])
        and (value[0] == 0 or _is_positive(value[0]))
    )


def _is_positive(value):
    return isinstance(value, (int, float)) and value > 0
