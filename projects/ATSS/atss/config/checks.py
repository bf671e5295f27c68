"""Checks of a config: values that exist, and keys that fit each other."""

import importlib.util
import inspect
import os
import re
import shutil

import torch
from detectron2.config import CfgNode
from detectron2.layers import get_norm
from detectron2.modeling import BACKBONE_REGISTRY

from ..data import RESIZE_BACKENDS, RESIZE_LIKE, SAMPLERS, make_augmentations
from ..errors import InputError, first_line
from ..evaluation import MERGES
from ..modeling.assigners import ASSIGNER_REGISTRY, BACKENDS, MAX_TOPK, check_ranges
from ..modeling.assigners.backends import HAS_TRITON
from ..modeling.backbones.timm import record_of
from ..modeling.head import ATSS_HEAD_REGISTRY
from .yaml_file import flat, short


def _is_positive(value):
    return isinstance(value, (int, float)) and value > 0


def _are_positive(values):
    return len(values) > 0 and all(map(_is_positive, values))


def _is_range(value):
    return (
        isinstance(value, (list, tuple))
        and len(value) == 2
        and (value[0] == 0 or _is_positive(value[0]))
        and _is_positive(value[1])
    )


# Values that a key may have; those of a registry when the check runs.
CHOICES = {
    "MODEL.ATSS.BOX_LOSS": ("giou", "smooth_l1"),
    "MODEL.ATSS.CLASS_LOSS": ("focal", "quality_focal"),
    "MODEL.ATSS.BOX_CODING": ("box", "point", "distribution"),
    "MODEL.ATSS.ASSIGNER": ASSIGNER_REGISTRY,
    "MODEL.ATSS.ASSIGNER_BACKEND": BACKENDS,
    "MODEL.ATSS.LOSS_BACKEND": BACKENDS,
    "MODEL.ATSS.PIXEL_EXTENT": (0, 1),
    "MODEL.ATSS.PREDICTOR_KERNEL": (1, 3),
    "INPUT.FORMAT": ("BGR", "RGB"),
    "INPUT.RESIZE_BACKEND_TRAIN": tuple(RESIZE_BACKENDS),
    "INPUT.RESIZE_LIKE": RESIZE_LIKE,
    "INPUT.RANDOM_FLIP": ("none", "horizontal", "vertical", "both"),
    "TEST.AUG.MERGE": MERGES,
    "DATALOADER.SAMPLER_TRAIN": SAMPLERS,
    "SOLVER.OPTIMIZER": ("SGD", "AdamW"),
    "SOLVER.AMP.PRECISION": ("float16", "bfloat16"),
    "MODEL.META_ARCHITECTURE": ("ATSS",),
    "MODEL.BACKBONE.NAME": BACKBONE_REGISTRY,
    "MODEL.ATSS.HEAD": ATSS_HEAD_REGISTRY,
}
# The packages that OUTPUT.LOGGERS may name.
LOGGERS = ("wandb", "mlflow", "clearml")
# Whether a number or a list of numbers is valid, and what is expected.
NUMBERS = {
    "MODEL.ATSS.TOPK": (lambda k: 1 <= k <= MAX_TOPK, f"a number from 1 to {MAX_TOPK}"),
    "INPUT.MAX_PIXELS": (_is_positive, "a number of pixels"),
    "MODEL.ATSS.ASPECT_RATIOS": (_are_positive, "positive numbers"),
    "MODEL.ATSS.SCALES_PER_OCTAVE": (_is_positive, "positive numbers"),
    "MODEL.ATSS.ANCHOR_SCALE": (_is_positive, "positive numbers"),
    "MODEL.ATSS.NUM_CONVS": (lambda n: n >= 0, "0 or a number of convolutions"),
    "MODEL.ATSS.DYHEAD_BLOCKS": (lambda n: n >= 0, "0 or a number of blocks"),
    "MODEL.ATSS.SIZE_DIVISIBILITY": (lambda n: n >= 1, "a number of pixels"),
    "MODEL.ATSS.MAX_DISTANCE": (_is_positive, "a number of strides"),
    "MODEL.ATSS.IOU_THRESHOLDS": (
        lambda pair: len(pair) == 2 and _are_positive(pair) and pair[0] <= pair[1] <= 1,
        "[negative, positive], 0 < negative <= positive <= 1",
    ),
    "TEST.AUG.MIN_SIZES": (_are_positive, "sizes in pixels"),
    "MODEL.TIMM.DROP_PATH_RATE": (lambda rate: 0 <= rate < 1, "0 or more and less than 1"),
    "SOLVER.BACKBONE_MULTIPLIER": (lambda factor: factor >= 0, "0 or a positive factor"),
    "SOLVER.LAYER_DECAY": (lambda factor: 0 < factor <= 1, "a factor of at most 1"),
    "SOLVER.EMA_DECAY": (lambda decay: 0 <= decay < 1, "0 or more and less than 1"),
    "SOLVER.MAX_SKIPPED_BATCHES": (lambda n: n >= 0, "0 or a number that may be skipped"),
    "DATALOADER.NUM_WORKERS": (lambda n: n >= -1, "-1 or a number of processes"),
    "DATALOADER.MAX_UNREADABLE": (lambda n: n >= 0, "0 or a number that may be skipped"),
    "SOLVER.EARLY_STOP": (lambda n: n >= 0, "0 or a number of evaluations"),
}


def check_config(cfg: CfgNode) -> None:
    """Check a config before anything is read or built; raises an InputError that names the key."""
    values = dict(flat(cfg))
    for key, allowed in CHOICES.items():
        allowed = allowed if isinstance(allowed, tuple) else tuple(name for name, _ in allowed)
        if values[key] not in allowed:
            raise InputError(f"{key}: {values[key]!r} is not one of {', '.join(map(repr, allowed))}")
    for key, (is_valid, expected) in NUMBERS.items():
        if not is_valid(values[key]):
            raise InputError(f"{key}: expected {expected}, got {values[key]}")
    try:
        torch.device(cfg.MODEL.DEVICE)
    except RuntimeError as error:
        raise InputError(f"MODEL.DEVICE {short(cfg.MODEL.DEVICE)!r}: {first_line(error)}") from error
    try:
        get_norm(cfg.MODEL.ATSS.NORM, 32)
    except KeyError:
        norm = cfg.MODEL.ATSS.NORM
        raise InputError(f"MODEL.ATSS.NORM: Detectron2 has no normalisation {norm!r}; 'GN', say, or ''") from None
    if cfg.MODEL.ATSS.USE_DCN_IN_TOWER and not cfg.MODEL.ATSS.NUM_CONVS:
        raise InputError("MODEL.ATSS.USE_DCN_IN_TOWER needs a tower, but MODEL.ATSS.NUM_CONVS is 0")
    if cfg.MODEL.ATSS.DYHEAD_BLOCKS and cfg.MODEL.FPN.OUT_CHANNELS % 16:
        raise InputError(
            "MODEL.ATSS.DYHEAD_BLOCKS normalises 16 groups of channels, but MODEL.FPN.OUT_CHANNELS is "
            f"{cfg.MODEL.FPN.OUT_CHANNELS}, not a multiple of 16"
        )
    try:
        make_augmentations(cfg.INPUT.AUGMENTATIONS)
    except ValueError as error:
        raise InputError(f"INPUT.AUGMENTATIONS: {short(str(error))}") from error
    if cfg.INPUT.AUGMENTATIONS and (cfg.MODEL.MASK_ON or cfg.MODEL.KEYPOINT_ON):
        raise InputError("INPUT.AUGMENTATIONS: for boxes alone; set MODEL.MASK_ON and MODEL.KEYPOINT_ON False")
    _check_class_loss(cfg.MODEL.ATSS)
    _check_rule(cfg.MODEL.ATSS)
    if cfg.MODEL.BACKBONE.NAME == "build_timm_fpn_backbone":
        record_of(cfg.MODEL.TIMM.NAME)
    elif cfg.SOLVER.LAYER_DECAY != 1:
        raise InputError("SOLVER.LAYER_DECAY is for MODEL.BACKBONE.NAME build_timm_fpn_backbone; set it to 1.0")
    elif cfg.MODEL.TIMM.NAME and "_resnet_" in cfg.MODEL.BACKBONE.NAME:
        raise InputError(
            f"MODEL.TIMM.NAME {short(cfg.MODEL.TIMM.NAME)} is for MODEL.BACKBONE.NAME build_timm_fpn_backbone: set "
            "that, too, or start from configs/atss_mobilenetv2_FPN.yaml"
        )
    for name in cfg.OUTPUT.LOGGERS:
        if name not in LOGGERS:
            raise InputError(f"OUTPUT.LOGGERS: {name!r} is not one of {', '.join(map(repr, LOGGERS))}")
    sizes, ranges = cfg.TEST.AUG.MIN_SIZES, cfg.TEST.AUG.BOX_RANGES
    if not all(map(_is_range, ranges)) or (ranges and len(ranges) != len(sizes)):
        raise InputError(
            f"TEST.AUG.BOX_RANGES: expected [from, to] in pixels for each of the {len(sizes)} scales of "
            f"TEST.AUG.MIN_SIZES, or none at all, got {ranges}"
        )
    if cfg.DATALOADER.SAMPLER_TRAIN == "RepeatFactorTrainingSampler" and cfg.DATALOADER.REPEAT_THRESHOLD <= 0:
        raise InputError(
            "DATALOADER.SAMPLER_TRAIN RepeatFactorTrainingSampler repeats the images of classes that less than "
            "DATALOADER.REPEAT_THRESHOLD of the images have: set that to a fraction, such as 0.1"
        )
    check_tiles(cfg)
    for key in ("TEST.KEEP_BEST", "SOLVER.EARLY_STOP"):
        if values[key] and cfg.TEST.EVAL_PERIOD < 1:
            raise InputError(f"{key} follows evaluations: set TEST.EVAL_PERIOD to the iterations between them")


def check_tiles(cfg: CfgNode) -> None:
    """Check TEST.TILE of a config; raises an InputError that names the key."""
    tile, anchors = cfg.TEST.TILE, cfg.MODEL.ATSS
    # Detectron2 names a level after the binary logarithm of its stride.
    levels = [int(digits[0]) for name in anchors.IN_FEATURES if (digits := re.findall(r"\d{1,2}$", str(name)))]
    least = anchors.ANCHOR_SCALE * 2 ** min(levels, default=0)
    if type(tile.SIZE) is not int or 0 != tile.SIZE < least:
        raise InputError(
            f"TEST.TILE.SIZE: expected 0, or at least {least:g} pixels, the side of the smallest anchor "
            f"(MODEL.ATSS.ANCHOR_SCALE), got {tile.SIZE!r}"
        )
    if type(tile.OVERLAP) not in (int, float) or not 0 <= tile.OVERLAP < 1:
        raise InputError(f"TEST.TILE.OVERLAP: expected 0 or more and less than 1, got {tile.OVERLAP!r}")
    if tile.SIZE and tile.WHOLE_IMAGE and not (cfg.INPUT.MIN_SIZE_TEST or cfg.TEST.AUG.ENABLED):
        raise InputError(
            "TEST.TILE.WHOLE_IMAGE: with INPUT.MIN_SIZE_TEST 0 the whole image would reach the model in its full size: "
            "set TEST.TILE.WHOLE_IMAGE False"
        )
    if tile.BATCH_SIZE < 0:
        raise InputError(f"TEST.TILE.BATCH_SIZE: expected 0 or a number of tiles, got {tile.BATCH_SIZE}")


def check_precision(cfg: CfgNode) -> None:
    """Check that the device of a config trains in SOLVER.AMP.PRECISION; raises an InputError that names the key."""
    precision, is_cuda = cfg.SOLVER.AMP.PRECISION, torch.device(cfg.MODEL.DEVICE).type == "cuda"
    if not cfg.SOLVER.AMP.ENABLED:
        return
    if precision == "float16" and not is_cuda:
        raise InputError(
            f"SOLVER.AMP.PRECISION float16 needs a CUDA GPU, and MODEL.DEVICE is {cfg.MODEL.DEVICE}: set "
            "SOLVER.AMP.PRECISION bfloat16, or SOLVER.AMP.ENABLED False"
        )
    if precision == "bfloat16" and is_cuda and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise InputError("SOLVER.AMP.PRECISION bfloat16: this GPU does not have it; set SOLVER.AMP.PRECISION float16")


def check_loggers(cfg: CfgNode) -> None:
    """Raise an InputError if a package of OUTPUT.LOGGERS is not installed."""
    for name in cfg.OUTPUT.LOGGERS:
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:  # no module, or a folder of that name, such as wandb's files
            raise InputError(f"OUTPUT.LOGGERS: {name} is not installed: pip install {name}")


def check_compiler(cfg: CfgNode) -> None:
    """Raise an InputError if MODEL.ATSS.COMPILE lacks the compiler that it needs on MODEL.DEVICE."""
    if not cfg.MODEL.ATSS.COMPILE:
        return
    if cfg.MODEL.DEVICE.startswith("cuda"):
        if not HAS_TRITON:
            raise InputError("MODEL.ATSS.COMPILE: torch.compile needs the package triton on a GPU")
    elif not shutil.which(os.environ.get("CXX", "g++")):
        raise InputError(
            "MODEL.ATSS.COMPILE: torch.compile needs a C++ compiler on a CPU; install g++ or name it in CXX"
        )


def _check_class_loss(atss):
    """Check that class loss, centerness, box loss and box coding fit each other."""
    if atss.CLASS_LOSS == "focal":
        if atss.BOX_CODING == "distribution":
            raise InputError("MODEL.ATSS.BOX_CODING 'distribution' needs MODEL.ATSS.CLASS_LOSS 'quality_focal'")
        return
    if atss.CENTERNESS:
        raise InputError(
            "MODEL.ATSS.CLASS_LOSS 'quality_focal' takes the place of centerness: set MODEL.ATSS.CENTERNESS False"
        )
    for key, values in (("BOX_LOSS", ("giou",)), ("LOSS_BACKEND", ("auto", "torch"))):
        if atss[key] not in values:
            raise InputError(
                f"MODEL.ATSS.CLASS_LOSS 'quality_focal' has no MODEL.ATSS.{key} {atss[key]!r}, only {values[-1]!r}"
            )


def _check_rule(atss):
    """Check that label assignment, anchors and box coding fit each other."""
    num_anchors = len(atss.ASPECT_RATIOS) * atss.SCALES_PER_OCTAVE
    if atss.BOX_CODING != "box" and num_anchors != 1:
        raise InputError(
            f"MODEL.ATSS.BOX_CODING {atss.BOX_CODING!r} regresses from a location, which has one anchor then, but "
            f"MODEL.ATSS.ASPECT_RATIOS {atss.ASPECT_RATIOS} and MODEL.ATSS.SCALES_PER_OCTAVE {atss.SCALES_PER_OCTAVE} "
            f"make {num_anchors}"
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
