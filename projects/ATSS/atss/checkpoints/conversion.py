"""Convert checkpoints of other codebases, with a config that follows their conventions."""

import math
import re
from operator import attrgetter
from typing import NamedTuple

import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model

from ..errors import InputError, first_line
from .formats import BOTTOM_UP, FORMATS, MMDETECTION_GFL, Format, format_of
from .reading import read_weights, some

EPS = 1e-5  # epsilon of Detectron2's FrozenBatchNorm2d
MAX_CLASSES = 100_000  # more than any dataset has
# Names in timm by channels of the first stage, blocks of the third one and side of a window.
SWINS = {
    (96, 6, 7): "swin_tiny_patch4_window7_224",
    (96, 18, 7): "swin_small_patch4_window7_224",
    (128, 18, 7): "swin_base_patch4_window7_224",
    (128, 18, 12): "swin_base_patch4_window12_384",
    (192, 18, 7): "swin_large_patch4_window7_224",
    (192, 18, 12): "swin_large_patch4_window12_384",
}
DEPTHS = {6: 50, 23: 101, 36: 152}  # MODEL.RESNETS.DEPTH by the number of blocks of res4


class Conversion(NamedTuple):
    """A converted checkpoint."""

    format: Format  # of the original
    weights: dict  # tensors by our key
    cfg: CfgNode  # config of the converted model
    mapped: dict  # from original key to ours
    left: list  # original keys that are not used
    filled: list  # our keys that the original lacks, filled with constants


def convert(path, cfg, own_model=False, own_datasets=False, keep=(), allow_pickle=False):
    """Read and convert a checkpoint of another codebase.

    Args:
        path: path of the file.
        cfg: config to start from; architecture and conventions are set to those of the checkpoint.
        own_model: True to refuse weights whose architecture differs from the config's.
        own_datasets: True to refuse weights whose classes differ from those of the config's datasets.
        keep: config keys that are not changed.
        allow_pickle: as in `read_file`.

    Returns:
        `Conversion`; its config is frozen, and complete except for MODEL.WEIGHTS.

    Raises:
        InputError: the file cannot be read, is of an unknown codebase, or is not a complete model.
    """
    theirs, names = read_weights(path, allow_pickle)
    format, mapped = rename(path, theirs)
    weights = {ours: theirs[key] for key, ours in mapped.items()}
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.DEVICE = "cpu"
    try:
        join_scales(weights)
        make_linear(weights)
        if format.arrange:
            format.arrange(weights)
        architecture = architecture_of(weights, format)
        if format.whole:
            settle_classes(path, cfg, architecture["MODEL.ATSS.NUM_CLASSES"], names, own_datasets)
        for key, found in architecture.items() if own_model else ():
            own = attrgetter(key)(cfg)
            if own != found and not (key == "MODEL.TIMM.NAME" and own.startswith(f"{found}.")):
                raise InputError(f"{path}: a model with {key} {found}, but the config has {own}")
        one_group = architecture.get("MODEL.RESNETS.NUM_GROUPS") == 1
        stride = {"MODEL.RESNETS.STRIDE_IN_1X1": format.stride_in_1x1 and one_group}
        reproduced = format.reproduced if architecture.get("MODEL.ATSS.PREDICTOR_KERNEL") == 1 else None
        for key, value in {**architecture, **format.settings, **stride, **(reproduced or {})}.items():
            if key not in keep:
                cfg.merge_from_list([key, value])
        filled = complete(path, weights, cfg, format)
        # Done last, when the shapes are known to be the model's.
        for key in weights:
            if key.endswith("running_var"):
                weights[key] = weights[key] + format.batch_norm_eps - EPS
    except (LookupError, TypeError, ValueError, ArithmeticError, RuntimeError, AssertionError, MemoryError) as error:
        raise InputError(
            f"{path}: not a whole ATSS model of {format.title} ({type(error).__name__}: {first_line(error)})"
        ) from error
    cfg.freeze()
    return Conversion(format, weights, cfg, mapped, [key for key in theirs if key not in mapped], filled)


def rename(path, weights):
    """The `Format` of the weights, and a dict from their keys to ours without the keys that are not used."""
    format = format_of(weights)
    if not format:
        if any(key.startswith((BOTTOM_UP, "stem.")) for key in weights):
            raise InputError(f"{path}: has Detectron2's names already; use it as it is (MODEL.WEIGHTS)")
        titles = ", ".join(dict.fromkeys(format.title for format in FORMATS))
        raise InputError(f"{path}: not a checkpoint of one of {titles}; its keys are {some(weights)}")
    names = {key: format.rename(key) for key in weights}
    unknown = [key for key, ours in names.items() if ours == "" and key.startswith(format.parts)]
    if unknown:
        raise InputError(f"{path}: not an ATSS model of {format.title}: no place here for {some(unknown)}")
    return format, {key: ours for key, ours in names.items() if ours}


def join_scales(weights):
    """Join the scalars of the levels in one tensor, in place."""
    scales = {int(key.rpartition(".")[2]): key for key in weights if key.startswith("head.scales.")}
    if sorted(scales) != list(range(len(scales))):
        raise ValueError(f"factors of the levels {sorted(scales)}")
    if scales:
        weights["head.scales"] = torch.stack([weights.pop(scales[level]).reshape(()) for level in sorted(scales)])


def make_linear(weights):
    """Give 1x1 convolutions of averages in a dynamic head the shape of linear layers, in place."""
    for key, value in weights.items():
        if re.fullmatch(r"neck\.blocks\.\d+\.(scale|relu\.\w+)\.weight", key) and value.shape[2:] == (1, 1):
            weights[key] = value[:, :, 0, 0]


def architecture_of(weights, format):
    """Config keys and values for the architecture of renamed weights."""
    if f"{BOTTOM_UP}model.patch_embed.proj.weight" in weights:
        settings = swin_of(weights)
    elif f"{BOTTOM_UP}stem.1.conv.2.weight" in weights:
        settings = {"MODEL.BACKBONE.NAME": "build_mobilenetv2_fpn_backbone"}
    else:
        settings = resnet_of(weights, format.whole)
    if not format.whole:
        return settings
    predictor = weights["head.class_logits.weight"]
    if format is MMDETECTION_GFL:
        num_anchors, num_values = 1, len(weights["head.box_deltas.weight"])
        if num_values % 4 or num_values < 8:
            raise ValueError(f"{num_values} numbers for the distributions of four distances")
        settings |= {
            "MODEL.ATSS.CLASS_LOSS": "quality_focal",
            "MODEL.ATSS.CENTERNESS": False,
            "MODEL.ATSS.BOX_CODING": "distribution",
            "MODEL.ATSS.MAX_DISTANCE": num_values // 4 - 1,
        }
    else:
        num_anchors = len(weights["head.centerness.bias"])
    num_classes = len(predictor) // num_anchors
    if not 0 < num_classes <= MAX_CLASSES:
        raise ValueError(f"{num_classes} classes")
    if predictor.shape[-1] not in (1, 3):
        raise ValueError(f"predictors of side {predictor.shape[-1]}")
    return {
        **settings,
        "MODEL.FPN.OUT_CHANNELS": predictor.shape[1],
        "MODEL.ATSS.DYHEAD_BLOCKS": numbers(weights, r"neck\.blocks\.(\d+)\."),
        "MODEL.ATSS.NUM_CONVS": numbers(weights, r"head\.class_tower\.(\d+)\."),
        "MODEL.ATSS.PREDICTOR_KERNEL": predictor.shape[-1],
        "MODEL.ATSS.USE_DCN_IN_TOWER": any(re.match(r"head\.class_tower\.\d\.offset", key) for key in weights),
        "MODEL.ATSS.NUM_CLASSES": num_classes,
    }


def resnet_of(weights, whole):
    """Config keys and values for the architecture of a ResNet; `whole`: of a detector, which may be deformable."""
    blocks = numbers(weights, re.escape(BOTTOM_UP) + r"res4\.(\d+)\.")
    if blocks not in DEPTHS:
        raise ValueError(f"no ResNet of 50, 101 or 152 layers: its third stage has {blocks} blocks")
    grouped = weights[f"{BOTTOM_UP}res2.0.conv2.weight"]
    groups = grouped.shape[0] // grouped.shape[1]
    settings = {
        "MODEL.RESNETS.DEPTH": DEPTHS[blocks],
        "MODEL.RESNETS.NUM_GROUPS": groups,
        "MODEL.RESNETS.WIDTH_PER_GROUP": grouped.shape[0] // groups,
    }
    if "backbone.fpn_output3.weight" in weights:
        settings["MODEL.FPN.OUT_CHANNELS"] = len(weights["backbone.fpn_output3.weight"])
    if not whole:
        return settings
    names = [f"{BOTTOM_UP}res{stage}.0.conv2_offset.bias" for stage in range(2, 6)]
    settings["MODEL.RESNETS.DEFORM_ON_PER_STAGE"] = [name in weights for name in names]
    offsets = [weights[name] for name in names if name in weights]
    if offsets:
        settings["MODEL.RESNETS.DEFORM_MODULATED"] = any(len(offset) == 27 for offset in offsets)
    return settings


def swin_of(weights):
    """Config keys and values for the architecture of a Swin Transformer."""
    channels = weights[f"{BOTTOM_UP}model.patch_embed.proj.weight"].shape[0]
    blocks = numbers(weights, re.escape(BOTTOM_UP) + r"model\.layers\.2\.blocks\.(\d+)\.")
    positions = len(weights[f"{BOTTOM_UP}model.layers.0.blocks.0.attn.relative_position_bias_table"])
    window = (math.isqrt(positions) + 1) // 2
    if (channels, blocks, window) not in SWINS:
        raise ValueError(f"no Swin Transformer: {channels} channels, {blocks} blocks, windows of side {window}")
    return {
        "MODEL.BACKBONE.NAME": "build_timm_fpn_backbone",
        "MODEL.TIMM.NAME": SWINS[channels, blocks, window],
        "MODEL.TIMM.NORM_FEATURES": True,
    }


def numbers(weights, pattern):
    """How many numbers there are in the first group of a pattern that keys begin with."""
    return len({match[1] for match in (re.match(pattern, key) for key in weights) if match})


def settle_classes(path, cfg, num_classes, names, own_datasets):
    """Set the number and names of the classes to the checkpoint's, and drop datasets with other classes.

    The user's own datasets must have as many classes as the checkpoint.
    """
    atss = cfg.MODEL.ATSS
    if own_datasets and num_classes != atss.NUM_CLASSES:
        raise InputError(f"{path}: a model of {num_classes} classes, but the config's datasets have {atss.NUM_CLASSES}")
    names = names if len(names) == num_classes else []
    if num_classes != atss.NUM_CLASSES or (names and names != atss.CLASS_NAMES and not own_datasets):
        cfg.DATASETS.TRAIN = cfg.DATASETS.TEST = ()
        atss.CLASS_NAMES = names or [f"class {i}" for i in range(num_classes)]


def complete(path, weights, cfg, format):
    """Fill in `Format.absent`, in place, and check that the weights are complete; return the filled keys."""
    needed = shapes_of(cfg)
    needed = {key: shape for key, shape in needed.items() if re.fullmatch(format.provides, key)}
    # num_batches_tracked: of batch normalisations that are not frozen.
    values = {
        key: number
        for pattern, number in (*format.absent, (r".*\.num_batches_tracked", 0))
        for key in needed.keys() - weights.keys()
        if re.fullmatch(pattern, key)
    }
    problems = {
        "lacks": [key for key in needed if key not in weights and key not in values],
        "has no place for": [key for key in weights if key not in needed],
        "does not fit:": [
            f"{key} is {tuple(weights[key].shape)}, not {tuple(shape)}"
            for key, shape in needed.items()
            if key in weights and weights[key].shape != shape
        ],
    }
    for problem, keys in problems.items():
        if keys:
            raise InputError(f"{path}: not a whole ATSS model of {format.title}: {problem} {some(keys)}")
    # Allocated last: weights of impossible shapes would need impossible amounts of memory.
    weights.update({key: torch.full(needed[key], number) for key, number in values.items()})
    return sorted(values)


def shapes_of(cfg):
    """Shapes of the parameters of the config's model, by key, without allocating them."""
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.DEVICE = "meta"
    cfg.MODEL.TIMM.PRETRAINED, cfg.MODEL.TIMM.FILE = False, ""
    with torch.device("meta"):
        return {key: value.shape for key, value in build_model(cfg).state_dict().items()}
