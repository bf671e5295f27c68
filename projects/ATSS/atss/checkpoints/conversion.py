"""Checkpoints of other codebases -> one of this project, and the config that makes its numbers mean the same."""

import re
from collections import defaultdict
from typing import NamedTuple

import torch
from detectron2.modeling import build_model

from ..errors import InputError
from .formats import BOTTOM_UP, FORMATS, format_of
from .reading import read_weights, some

# Detectron2's FrozenBatchNorm2d adds it to a variance.
EPS = 1e-5
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


def convert(path, cfg, check=False):
    """Read a checkpoint of another codebase, and make it one of this project.

    Args:
        path: of the file.
        cfg: config to start from; it gets the architecture of the weights, and the conventions of their codebase.
        check: True to refuse weights of another architecture than that of `cfg`, instead.

    Returns:
        `Conversion`; the config is complete, but for MODEL.WEIGHTS, and frozen.

    Raises:
        InputError: the file cannot be read, is of no known codebase, or does not hold the whole model.
    """
    theirs, names = read_weights(path)
    format = recognise(path, theirs)
    mapped, left = rename(path, theirs, format)
    weights = {ours: theirs[key].float() for key, ours in mapped.items()}
    weights = {key: value + format.batch_norm_eps - EPS if key.endswith("running_var") else value
               for key, value in weights.items()}  # fmt: skip
    join_scales(weights)

    architecture = architecture_of(path, weights, format)
    cfg = cfg.clone()
    cfg.defrost()
    if check:
        check_architecture(path, cfg, architecture)
    for key, value in {**architecture, **format.settings}.items():
        cfg.merge_from_list([key, value])
    if format.whole and not check:
        settle_classes(cfg, names)
    cfg.MODEL.DEVICE = "cpu"
    filled = complete(path, weights, cfg, format)
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
    if scales:
        weights["head.scales"] = torch.stack([weights.pop(scales[level]).reshape(()) for level in sorted(scales)])


def architecture_of(path, weights, format):
    """dict from config key to the value that weights with our names have."""
    blocks = defaultdict(set)
    for key in weights:
        match = re.match(re.escape(BOTTOM_UP) + r"res(\d)\.(\d+)\.", key)
        if match:
            blocks[int(match[1])].add(int(match[2]))
    depth = DEPTHS.get(len(blocks[4]))
    if depth is None or f"{BOTTOM_UP}res2.0.conv3.weight" not in weights:
        raise InputError(f"{path}: no ResNet of 50, 101 or 152 layers: its third stage has {len(blocks[4])} blocks")
    grouped = weights[f"{BOTTOM_UP}res2.0.conv2.weight"]
    groups = grouped.shape[0] // grouped.shape[1]
    offsets = {stage: weights.get(f"{BOTTOM_UP}res{stage}.0.conv2_offset.bias") for stage in range(2, 6)}
    settings = {
        "MODEL.RESNETS.DEPTH": depth,
        "MODEL.RESNETS.NUM_GROUPS": groups,
        "MODEL.RESNETS.WIDTH_PER_GROUP": grouped.shape[0] // groups,
        "MODEL.RESNETS.STRIDE_IN_1X1": format.stride_in_1x1 and groups == 1,
        "MODEL.RESNETS.DEFORM_ON_PER_STAGE": [offset is not None for offset in offsets.values()],
        "MODEL.RESNETS.DEFORM_MODULATED": any(offset is not None and len(offset) == 27 for offset in offsets.values()),
    }
    if not format.whole:
        return settings
    convolutions = {int(m[1]) for m in (re.match(r"head\.class_tower\.(\d)\.", key) for key in weights) if m}
    num_anchors = len(weights["head.centerness.bias"]) if "head.centerness.bias" in weights else 1
    return {
        **settings,
        "MODEL.FPN.OUT_CHANNELS": len(weights["head.class_logits.weight"][0]),
        "MODEL.ATSS.NUM_CONVS": len(convolutions),
        "MODEL.ATSS.USE_DCN_IN_TOWER": any(re.match(r"head\.class_tower\.\d\.offset", key) for key in weights),
        "MODEL.ATSS.NUM_CLASSES": len(weights["head.class_logits.weight"]) // num_anchors,
    }


def check_architecture(path, cfg, architecture):
    """See that weights have the architecture of a config."""
    for key, found in architecture.items():
        node = cfg
        for part in key.split("."):
            node = node[part]
        if key == "MODEL.ATSS.NUM_CLASSES" and node == 0:
            continue
        # Whether the layers are modulated means nothing where there is none.
        if key.endswith("DEFORM_MODULATED") and not any(architecture["MODEL.RESNETS.DEFORM_ON_PER_STAGE"]):
            continue
        if node != found:
            raise InputError(f"{path}: a model with {key} {found}, but the config has {node}")


def settle_classes(cfg, names):
    """Datasets of other classes than the model's go; its own names come, where it has them."""
    num_classes = cfg.MODEL.ATSS.NUM_CLASSES
    if num_classes != 80:
        cfg.DATASETS.TRAIN = cfg.DATASETS.TEST = ()
        cfg.MODEL.ATSS.CLASS_NAMES = names if len(names) == num_classes else [f"class {i}" for i in range(num_classes)]


def complete(path, weights, cfg, format):
    """Fill in what `weights` need no value for, and see that they are all of the model; returns the filled keys."""
    needed = shapes_of(cfg)
    if not format.whole:
        needed = {key: shape for key, shape in needed.items() if key.startswith(BOTTOM_UP)}
    filled = []
    for pattern, number in format.absent:
        for key in needed.keys() - weights.keys():
            if re.fullmatch(pattern, key):
                weights[key] = torch.full(needed[key], number - EPS if key.endswith("running_var") else number)
                filled.append(key)
    missing = [key for key in needed if key not in weights]
    extra = [key for key in weights if key not in needed]
    wrong = [
        f"{key} is {tuple(weights[key].shape)}, not {tuple(shape)}"
        for key, shape in needed.items()
        if key in weights and weights[key].shape != shape
    ]
    for keys, reason in ((missing, "lacks"), (extra, "has no place for"), (wrong, "does not fit:")):
        if keys:
            raise InputError(f"{path}: not a whole ATSS model of {format.title}: {reason} {some(keys)}")
    return sorted(filled)


def shapes_of(cfg):
    """dict from key to shape of the config's model, of which no value is computed."""
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.DEVICE = "meta"
    with torch.device("meta"):
        return {key: value.shape for key, value in build_model(cfg).state_dict().items()}
