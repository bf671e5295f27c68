"""Checkpoints of other codebases -> one of this project, and the config that makes its numbers mean the same."""

import re
from typing import NamedTuple

import torch
from detectron2.modeling import build_model

from ..errors import InputError, first_line
from .formats import BOTTOM_UP, FORMATS, format_of
from .reading import read_weights, some

# Detectron2's FrozenBatchNorm2d adds it to a variance.
EPS = 1e-5
# More than any dataset has.
MAX_CLASSES = 100_000
# Blocks of res4, by MODEL.RESNETS.DEPTH.
DEPTHS = {6: 50, 23: 101, 36: 152}


class Conversion(NamedTuple):
    """A converted checkpoint.

    format: `Format` that it had.
    weights: dict from our key to tensor.
    cfg: config of the model that they fit.
    mapped: dict from their key to ours.
    left: list of their keys that are of no use here.
    filled: list of our keys that they have no value for, and need none: set to what they mean.
    """

    format: object
    weights: dict
    cfg: object
    mapped: dict
    left: list
    filled: list


def convert(path, cfg, own_model=False, own_datasets=False, keep=(), allow_pickle=False):
    """Read a checkpoint of another codebase, and make it one of this project.

    Args:
        path: of the file.
        cfg: config to start from; it gets the architecture of the weights, and the conventions of their codebase.
        own_model: True to refuse weights of another architecture than the config's.
        own_datasets: True to refuse weights of other classes than those of the config's datasets.
        keep: keys of conventions that stay as they are in the config.
        allow_pickle: as for `read_file`.

    Returns:
        `Conversion`; the config is complete, but for MODEL.WEIGHTS, and frozen.

    Raises:
        InputError: the file cannot be read, is of no known codebase, or does not hold the whole model.
    """
    theirs, names = read_weights(path, allow_pickle)
    format = recognise(path, theirs)
    mapped, left = rename(path, theirs, format)
    weights = {ours: theirs[key] for key, ours in mapped.items()}
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.DEVICE = "cpu"
    try:
        join_scales(weights)
        architecture = architecture_of(weights, format)
        if format.whole:
            settle_classes(path, cfg, architecture["MODEL.ATSS.NUM_CLASSES"], names, own_datasets)
        if own_model:
            check_architecture(path, cfg, architecture)
        one_group = architecture["MODEL.RESNETS.NUM_GROUPS"] == 1
        stride = {"MODEL.RESNETS.STRIDE_IN_1X1": format.stride_in_1x1 and one_group}
        for key, value in {**architecture, **format.settings, **stride}.items():
            if key not in keep:
                cfg.merge_from_list([key, value])
        filled = complete(path, weights, cfg, format)
        # Only now that they have the model's shapes.
        for key in weights.keys() - set(filled):
            if key.endswith("running_var"):
                weights[key] = weights[key] + format.batch_norm_eps - EPS
    except (LookupError, TypeError, ValueError, ArithmeticError, RuntimeError, AssertionError, MemoryError) as error:
        # Weights of shapes that no model has.
        raise InputError(
            f"{path}: not a whole ATSS model of {format.title} ({type(error).__name__}: {first_line(error)})"
        ) from error
    cfg.freeze()
    return Conversion(format, weights, cfg, mapped, left, filled)


def recognise(path, weights):
    """The `Format` of some weights."""
    format = format_of(weights)
    if format:
        return format
    if any(key.startswith((BOTTOM_UP, "stem.")) for key in weights):
        raise InputError(f"{path}: has Detectron2's names already; use it as it is (MODEL.WEIGHTS)")
    titles = ", ".join(format.title for format in FORMATS)
    raise InputError(f"{path}: not a checkpoint of one of {titles}; its keys are {some(weights)}")


def rename(path, weights, format):
    """dict from their keys to ours; list of those of no use."""
    names = {key: format.rename(key) for key in weights}
    unknown = [key for key, ours in names.items() if ours == key and key.startswith(format.parts)]
    if unknown:
        raise InputError(f"{path}: not an ATSS model of {format.title}: no place here for {some(unknown)}")
    mapped = {key: ours for key, ours in names.items() if ours not in (None, key)}
    return mapped, [key for key in weights if key not in mapped]


def join_scales(weights):
    """One factor a level -> one tensor; changes the dict."""
    scales = {int(key.rpartition(".")[2]): key for key in weights if key.startswith("head.scales.")}
    if sorted(scales) != list(range(len(scales))):
        raise ValueError(f"factors of the levels {sorted(scales)}")
    if scales:
        weights["head.scales"] = torch.stack([weights.pop(scales[level]).reshape(()) for level in sorted(scales)])


def architecture_of(weights, format):
    """dict from config key to the value that weights with our names have."""
    blocks = {int(m[1]) for m in (re.match(re.escape(BOTTOM_UP) + r"res4\.(\d+)\.", key) for key in weights) if m}
    if len(blocks) not in DEPTHS:
        raise ValueError(f"no ResNet of 50, 101 or 152 layers: its third stage has {len(blocks)} blocks")
    grouped = weights[f"{BOTTOM_UP}res2.0.conv2.weight"]
    groups = grouped.shape[0] // grouped.shape[1]
    settings = {
        "MODEL.RESNETS.DEPTH": DEPTHS[len(blocks)],
        "MODEL.RESNETS.NUM_GROUPS": groups,
        "MODEL.RESNETS.WIDTH_PER_GROUP": grouped.shape[0] // groups,
    }
    if not format.whole:
        return settings
    offsets = [weights.get(f"{BOTTOM_UP}res{stage}.0.conv2_offset.bias") for stage in range(2, 6)]
    settings["MODEL.RESNETS.DEFORM_ON_PER_STAGE"] = [offset is not None for offset in offsets]
    if any(settings["MODEL.RESNETS.DEFORM_ON_PER_STAGE"]):
        modulated = any(offset is not None and len(offset) == 27 for offset in offsets)
        settings["MODEL.RESNETS.DEFORM_MODULATED"] = modulated
    num_anchors = len(weights["head.centerness.bias"])
    num_classes = len(weights["head.class_logits.weight"]) // num_anchors
    if not 0 < num_classes <= MAX_CLASSES:
        raise ValueError(f"{num_classes} classes")
    return {
        **settings,
        "MODEL.FPN.OUT_CHANNELS": weights["head.class_logits.weight"].shape[1],
        "MODEL.ATSS.USE_DCN_IN_TOWER": any(re.match(r"head\.class_tower\.\d\.offset", key) for key in weights),
        "MODEL.ATSS.NUM_CLASSES": num_classes,
    }


def check_architecture(path, cfg, architecture):
    """Check that weights have the architecture of a config."""
    for key, found in architecture.items():
        node = cfg
        for part in key.split("."):
            node = node[part]
        if node != found:
            raise InputError(f"{path}: a model with {key} {found}, but the config has {node}")


def settle_classes(path, cfg, num_classes, names, own_datasets):
    """Bring the classes of a config in line with a model's: their number, and their names, where the file has them.

    Datasets of other classes go, unless they are the user's own, which must fit.
    """
    atss = cfg.MODEL.ATSS
    if own_datasets and num_classes != atss.NUM_CLASSES:
        raise InputError(f"{path}: a model of {num_classes} classes, but the config's datasets have {atss.NUM_CLASSES}")
    names = names if len(names) == num_classes else []
    if num_classes != atss.NUM_CLASSES or (names and names != atss.CLASS_NAMES and not own_datasets):
        cfg.DATASETS.TRAIN = cfg.DATASETS.TEST = ()
        atss.CLASS_NAMES = names or [f"class {i}" for i in range(num_classes)]


def complete(path, weights, cfg, format):
    """Fill in what `weights` need no value for, and see that they are all of the model; returns the filled keys."""
    needed = shapes_of(cfg)
    if not format.whole:
        # Offsets start from zero: ImageNet weights have none.
        needed = {key: s for key, s in needed.items() if key.startswith(BOTTOM_UP) and "conv2_offset" not in key}
    # Of normalisations that are not frozen.
    absent = (*format.absent, (r".*\.num_batches_tracked", 0))
    values = {key: number for pattern, number in absent for key in needed.keys() - weights.keys()
              if re.fullmatch(pattern, key)}  # fmt: skip
    missing = [key for key in needed if key not in weights and key not in values]
    extra = [key for key in weights if key not in needed]
    wrong = [
        f"{key} is {tuple(weights[key].shape)}, not {tuple(shape)}"
        for key, shape in needed.items()
        if key in weights and weights[key].shape != shape
    ]
    for keys, reason in ((missing, "lacks"), (extra, "has no place for"), (wrong, "does not fit:")):
        if keys:
            raise InputError(f"{path}: not a whole ATSS model of {format.title}: {reason} {some(keys)}")
    # Only now: weights of impossible shapes want fillings that no memory holds.
    for key, number in values.items():
        weights[key] = torch.full(needed[key], number - EPS if key.endswith("running_var") else number)
    return sorted(values)


def shapes_of(cfg):
    """dict from key to shape of the config's model, of which no value is computed."""
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.DEVICE = "meta"
    with torch.device("meta"):
        return {key: value.shape for key, value in build_model(cfg).state_dict().items()}
