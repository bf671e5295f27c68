"""Convert checkpoints of other codebases, with a config that follows their conventions."""

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
        architecture = architecture_of(weights, format)
        if format.whole:
            settle_classes(path, cfg, architecture["MODEL.ATSS.NUM_CLASSES"], names, own_datasets)
        for key, found in architecture.items() if own_model else ():
            own = attrgetter(key)(cfg)
            if own != found:
                raise InputError(f"{path}: a model with {key} {found}, but the config has {own}")
        one_group = architecture["MODEL.RESNETS.NUM_GROUPS"] == 1
        stride = {"MODEL.RESNETS.STRIDE_IN_1X1": format.stride_in_1x1 and one_group}
        for key, value in {**architecture, **format.settings, **stride}.items():
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
        titles = ", ".join(format.title for format in FORMATS)
        raise InputError(f"{path}: not a checkpoint of one of {titles}; its keys are {some(weights)}")
    names = {key: format.rename(key) for key in weights}
    unknown = [key for key, ours in names.items() if ours == key and key.startswith(format.parts)]
    if unknown:
        raise InputError(f"{path}: not an ATSS model of {format.title}: no place here for {some(unknown)}")
    return format, {key: ours for key, ours in names.items() if ours not in (None, key)}


def join_scales(weights):
    """Join the scalars of the levels in one tensor, in place."""
    scales = {int(key.rpartition(".")[2]): key for key in weights if key.startswith("head.scales.")}
    if sorted(scales) != list(range(len(scales))):
        raise ValueError(f"factors of the levels {sorted(scales)}")
    if scales:
        weights["head.scales"] = torch.stack([weights.pop(scales[level]).reshape(()) for level in sorted(scales)])


def architecture_of(weights, format):
    """Config keys and values for the architecture of renamed weights."""
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
    names = [f"{BOTTOM_UP}res{stage}.0.conv2_offset.bias" for stage in range(2, 6)]
    settings["MODEL.RESNETS.DEFORM_ON_PER_STAGE"] = [name in weights for name in names]
    offsets = [weights[name] for name in names if name in weights]
    if offsets:
        settings["MODEL.RESNETS.DEFORM_MODULATED"] = any(len(offset) == 27 for offset in offsets)
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
    num_classes = len(weights["head.class_logits.weight"]) // num_anchors
    if not 0 < num_classes <= MAX_CLASSES:
        raise ValueError(f"{num_classes} classes")
    return {
        **settings,
        "MODEL.FPN.OUT_CHANNELS": weights["head.class_logits.weight"].shape[1],
        "MODEL.ATSS.USE_DCN_IN_TOWER": any(re.match(r"head\.class_tower\.\d\.offset", key) for key in weights),
        "MODEL.ATSS.NUM_CLASSES": num_classes,
    }


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
    if not format.whole:
        # ImageNet weights have no offsets, which are initialised to 0.
        needed = {key: s for key, s in needed.items() if key.startswith(BOTTOM_UP) and "conv2_offset" not in key}
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
    with torch.device("meta"):
        return {key: value.shape for key, value in build_model(cfg).state_dict().items()}
