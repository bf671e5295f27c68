"""What every command does first: from a config file and key-value pairs to a config that can be run."""

import inspect
import logging
import sys

import torch
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.layers import get_norm
from detectron2.modeling import BACKBONE_REGISTRY

from .assigners import ASSIGNER_REGISTRY, BACKENDS, MAX_TOPK, check_ranges, settle_backend
from .config import add_atss_config
from .config_file import merge, short
from .data import RESIZE_LIKE, SAMPLERS, read_dataset, register_coco_format, register_folder, register_folder_unseen
from .errors import InputError, first_line
from .evaluation import MERGES
from .head import ATSS_HEAD_REGISTRY

logger = logging.getLogger("atss.run")


def load_config(config_file, opts=(), read_datasets=True):
    """Read a config, register its datasets, settle the device and the classes.

    Args:
        config_file: yaml file; read without running code from it.
        opts: list of keys and values in turn, which go over the file's.
        read_datasets: False to take the classes from MODEL.ATSS.CLASS_NAMES if it has them, without a look at the
            datasets: a trained model's config.yaml does.

    Returns:
        the frozen config.

    Raises:
        InputError: a file, key or value that cannot be used; datasets that do not fit each other or NUM_CLASSES.
    """
    cfg = get_cfg()
    add_atss_config(cfg)
    merge(cfg, config_file, list(opts))
    _check_choices(cfg)
    for entry in cfg.DATASETS.REGISTER:
        register_coco_format(*_triple(entry))
    if cfg.DATASETS.FOLDER:
        _settle_folder(cfg, list(opts)[::2], read_datasets or not cfg.MODEL.ATSS.CLASS_NAMES)
    _settle_device(cfg)
    if read_datasets or not cfg.MODEL.ATSS.CLASS_NAMES:
        _settle_classes(cfg)
    cfg.freeze()
    return cfg


def wanted_device(config_file, opts=()):
    """What a config runs on, "cuda" or "cpu", without a look at its datasets.

    Raises:
        InputError: as of `load_config`.
    """
    cfg = get_cfg()
    add_atss_config(cfg)
    merge(cfg, config_file, list(opts))
    return "cuda" if cfg.MODEL.DEVICE.startswith("cuda") and torch.cuda.is_available() else "cpu"


def parse_with_opts(parser, arguments=None):
    """Parse a command line with config keys and values, `opts`, that may stand behind options of any number of values.

    Args:
        parser: `argparse.ArgumentParser` with a positional argument `opts` of any number.
        arguments: list of str; those of the command where it is None.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    nodes, opts, rest, among_opts = get_cfg().keys(), [], [], False
    for text in arguments:
        among_opts = not text.startswith("--") and (among_opts or text.split(".")[0] in nodes)
        (opts if among_opts else rest).append(text)
    args = parser.parse_args(rest)
    args.opts += opts
    return args


def _check_choices(cfg):
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
    """Averaged weights, and what follows evaluations."""
    if not 0 <= cfg.SOLVER.EMA_DECAY < 1:
        raise InputError(f"SOLVER.EMA_DECAY: expected 0 or more and less than 1, got {cfg.SOLVER.EMA_DECAY}")
    for key, number in (("SOLVER.MAX_LEFT_OUT", cfg.SOLVER.MAX_LEFT_OUT),
                        ("DATALOADER.MAX_UNREADABLE", cfg.DATALOADER.MAX_UNREADABLE)):  # fmt: skip
        if number < 0:
            raise InputError(f"{key}: expected 0 or a number that may be left out, got {number}")
    if cfg.SOLVER.EARLY_STOP < 0:
        raise InputError(f"SOLVER.EARLY_STOP: expected 0 or a number of evaluations, got {cfg.SOLVER.EARLY_STOP}")
    for key, wanted in (("TEST.KEEP_BEST", cfg.TEST.KEEP_BEST), ("SOLVER.EARLY_STOP", cfg.SOLVER.EARLY_STOP)):
        if wanted and cfg.TEST.EVAL_PERIOD < 1:
            raise InputError(f"{key} follows evaluations: set TEST.EVAL_PERIOD to the iterations between them")


def _check_numbers(atss):
    """Sizes that anchors can have, and a normalisation that exists."""
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
    """What the rule for positives, the anchors and the box coding want of each other."""
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
    """Ranges of box sizes go with the scales of multi-scale testing, one for each."""
    if not aug.MIN_SIZES or not all(map(_is_positive, aug.MIN_SIZES)):
        raise InputError(f"TEST.AUG.MIN_SIZES: expected sizes in pixels, got {aug.MIN_SIZES}")
    pairs = all(
        isinstance(r, (list, tuple)) and len(r) == 2 and _is_positive(r[1]) and (r[0] == 0 or _is_positive(r[0]))
        for r in aug.BOX_RANGES
    )
    if not pairs or (aug.BOX_RANGES and len(aug.BOX_RANGES) != len(aug.MIN_SIZES)):
        raise InputError(
            "TEST.AUG.BOX_RANGES: expected [from, to] in pixels for each of the "
            f"{len(aug.MIN_SIZES)} scales of TEST.AUG.MIN_SIZES, or none at all, got {aug.BOX_RANGES}"
        )


def _is_positive(value):
    return isinstance(value, (int, float)) and value > 0


def _triple(entry):
    if isinstance(entry, (list, tuple)) and len(entry) == 3 and all(isinstance(part, str) for part in entry):
        return entry
    raise InputError(f"DATASETS.REGISTER: expected [name, annotation file, picture folder], got {entry!r}")


def _settle_folder(cfg, given, look):
    """Register the parts of DATASETS.FOLDER, and fill in DATASETS.TRAIN and DATASETS.TEST.

    Args:
        given: keys of the command line, whose values stay.
        look: False where a trained model's config.yaml may have outlived the folder.
    """
    datasets = cfg.DATASETS
    if datasets.REGISTER:
        raise InputError("DATASETS.FOLDER and DATASETS.REGISTER: give one of them; docs/own_data.md shows both")
    if not look and "DATASETS.FOLDER" not in given:
        register_folder_unseen(datasets.FOLDER, [*datasets.TRAIN, *datasets.TEST])
        return
    names = register_folder(datasets.FOLDER)
    to_test = names.get("val") or names.get("test")
    chosen = {"TRAIN": names.get("train"), "TEST": to_test}
    for key, name in chosen.items():
        # A run's config.yaml names them already, or others of them that were asked for.
        filled_in = datasets[key] and set(datasets[key]) <= set(names.values())
        if f"DATASETS.{key}" not in given and not filled_in:
            datasets[key] = (name,) if name else ()
    if not datasets.TRAIN and not datasets.TEST:
        raise InputError(
            f"{datasets.FOLDER}: has no part train, val or test, but {', '.join(names)}; name those to train and to "
            f"test on: DATASETS.TRAIN \"('{next(iter(names.values()))}',)\""
        )
    if not to_test and not datasets.TEST:
        logger.warning(
            "%s has no part val or test: nothing will be evaluated. Move some of its pictures and their annotations "
            "into a part val, or name another dataset in DATASETS.TEST.", datasets.FOLDER,
        )  # fmt: skip


def _settle_device(cfg):
    cfg.MODEL.DEVICE, cfg.SOLVER.AMP.ENABLED = available(
        cfg.MODEL.DEVICE, cfg.SOLVER.AMP.ENABLED, "MODEL.DEVICE", "SOLVER.AMP"
    )
    try:
        settle_backend(cfg.MODEL.ATSS.ASSIGNER_BACKEND, torch.device(cfg.MODEL.DEVICE))
    except ValueError as error:
        raise InputError(f"MODEL.ATSS.ASSIGNER_BACKEND: {error}") from error


def available(device, mixed_precision, device_key, mixed_precision_key):
    """A device and whether to train in mixed precision there: as wanted, or where there is no GPU the CPU and False.

    What is changed is named in the log by its key.
    """
    if not device.startswith("cuda") or torch.cuda.is_available():
        return device, mixed_precision
    logger.warning("%s is %s, but there is no CUDA GPU here: running on the CPU.", device_key, device)
    if mixed_precision:
        logger.warning("%s needs a CUDA GPU: training in full precision.", mixed_precision_key)
    return "cpu", False


def _settle_classes(cfg):
    """Fill in NUM_CLASSES and CLASS_NAMES from the datasets, or see that they agree."""
    known = {name: class_names(name) for name in (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST)}
    atss = cfg.MODEL.ATSS
    if not known:
        if atss.NUM_CLASSES < 1:
            raise InputError("MODEL.ATSS.NUM_CLASSES: give it, or a dataset in DATASETS.TRAIN or DATASETS.TEST")
        return
    (first, names), *others = known.items()
    for other, other_names in others:
        if other_names != names:
            raise InputError(
                f"DATASETS: {first} has the {len(names)} classes {', '.join(names)}, but {other} has the "
                f"{len(other_names)} classes {', '.join(other_names)}; give them the same categories"
            )
    if atss.NUM_CLASSES not in (0, len(names)):
        raise InputError(
            f"MODEL.ATSS.NUM_CLASSES is {atss.NUM_CLASSES}, but dataset {first} has {len(names)} classes; leave the "
            "key out to take the dataset's"
        )
    atss.NUM_CLASSES = len(names)
    atss.CLASS_NAMES = list(names)


def class_names(dataset):
    """Names of the classes of a registered dataset, in the order of the model's outputs.

    Raises:
        InputError: no dataset of that name, or its annotations cannot be read.
    """
    if dataset not in DatasetCatalog.list():
        raise InputError(
            f"DATASETS: there is no dataset named {dataset!r}; register yours with DATASETS.REGISTER "
            "\"[['name','annotations.json','pictures/']]\""
        )
    if not hasattr(MetadataCatalog.get(dataset), "thing_classes"):
        read_dataset(dataset, keep=True)  # fills in the names
    return list(MetadataCatalog.get(dataset).thing_classes)
