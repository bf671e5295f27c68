"""From a config file and the command line to a config that is ready to run."""

import argparse
import logging
import sys
from collections.abc import Sequence

import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog

from ..data import read_dataset, register_coco_format, register_folder, register_folder_unseen
from ..errors import InputError
from ..modeling.assigners import settle_backend
from ..modeling.backbones.timm import input_of
from .checks import check_compiler, check_config, check_precision
from .defaults import add_atss_config
from .shipped import find_config
from .yaml_file import given_with, merge

logger = logging.getLogger(__name__)


def load_config(config_file: str, opts: Sequence[str] = (), read_datasets: bool = True) -> CfgNode:
    """Read a config, check it, register its datasets, set the device and the classes; return it frozen.

    Args:
        config_file: yaml file, which cannot run code; or the name of one of the project's configs.
        opts: alternating keys and values, which override the file.
        read_datasets: False for inference: to take the classes from MODEL.ATSS.CLASS_NAMES, if they are given as in the
            config.yaml of a trained model, without reading the datasets; the precision of training does not matter.

    Raises:
        InputError: a file, key or value that cannot be used; datasets that do not fit each other or NUM_CLASSES.
    """
    config_file = find_config(config_file)
    cfg = _merged(config_file, opts)
    check_config(cfg)
    if cfg.MODEL.BACKBONE.NAME == "build_timm_fpn_backbone":
        _settle_input(cfg, given_with("MODEL.TIMM.NAME", config_file, opts))
    is_for_inference, read_datasets = not read_datasets, read_datasets or not cfg.MODEL.ATSS.CLASS_NAMES
    _register_datasets(cfg, list(opts)[::2], look=read_datasets)
    _settle_device(cfg)
    if not is_for_inference:  # a model runs on other devices than those that it is trained on, too
        check_precision(cfg)
    if read_datasets:
        _settle_classes(cfg)
    cfg.freeze()
    return cfg


def wanted_device(config_file: str, opts: Sequence[str] = ()) -> str:
    """The device of a config, "cuda" or "cpu", without reading its datasets; raises as `load_config`."""
    cfg = _merged(find_config(config_file), opts)
    return "cuda" if cfg.MODEL.DEVICE.startswith("cuda") and torch.cuda.is_available() else "cpu"


def parse_with_opts(parser: argparse.ArgumentParser, arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse a command line with config keys and values anywhere among the options.

    The parser has a positional argument `opts` for them, with nargs "*" or similar. `arguments` replace sys.argv.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    nodes, opts, rest, among_opts = get_cfg().keys(), [], [], False
    for text in arguments:
        among_opts = not text.startswith("--") and (among_opts or text.split(".")[0] in nodes)
        (opts if among_opts else rest).append(text)
    args = parser.parse_args(rest)
    args.opts = [*args.opts, *opts]
    return args


def _merged(config_file, opts):
    cfg = get_cfg()
    add_atss_config(cfg)
    merge(cfg, config_file, list(opts))
    return cfg


def _settle_input(cfg, given):
    """Take the order of the channels and their statistics from timm's record of the model, except `given` keys."""
    order = [cfg.INPUT.FORMAT] if "INPUT.FORMAT" in given else []
    for key, value in input_of(cfg.MODEL.TIMM.NAME, *order).items():
        if key not in given:
            cfg.merge_from_list([key, value])


def _settle_device(cfg):
    """Fall back to the CPU without a CUDA GPU, and check the backends."""
    if cfg.MODEL.DEVICE.startswith("cuda") and not torch.cuda.is_available():
        logger.warning("MODEL.DEVICE is %s, but there is no CUDA GPU here: running on the CPU.", cfg.MODEL.DEVICE)
        cfg.MODEL.DEVICE = "cpu"
        if cfg.SOLVER.AMP.ENABLED and cfg.SOLVER.AMP.PRECISION == "float16":
            logger.warning("SOLVER.AMP.PRECISION float16 needs a CUDA GPU: training in full precision.")
            cfg.SOLVER.AMP.ENABLED = False
    for key in ("ASSIGNER_BACKEND", "LOSS_BACKEND"):
        try:
            settle_backend(cfg.MODEL.ATSS[key], torch.device(cfg.MODEL.DEVICE))
        except ValueError as error:
            raise InputError(f"MODEL.ATSS.{key}: {error}") from error
    check_compiler(cfg)


def _register_datasets(cfg, given, look):
    """Register the datasets of DATASETS.REGISTER or DATASETS.FOLDER, whose splits DATASETS.TRAIN and TEST then name.

    Values of `given` keys, those of the command line, are kept. `look` False accepts a folder that no longer exists.
    """
    datasets = cfg.DATASETS
    for entry in datasets.REGISTER:
        if not isinstance(entry, (list, tuple)) or [type(part) for part in entry] != [str] * 3:
            raise InputError(f"DATASETS.REGISTER: expected [name, annotation file, image folder], got {entry!r}")
        register_coco_format(*entry)
    if not datasets.FOLDER:
        return
    if datasets.REGISTER:
        raise InputError("DATASETS.FOLDER and DATASETS.REGISTER: give one of them; docs/own_data.md shows both")
    if not look and "DATASETS.FOLDER" not in given:
        register_folder_unseen(datasets.FOLDER, [*datasets.TRAIN, *datasets.TEST])
        return
    names = register_folder(datasets.FOLDER)
    to_test = names.get("val") or names.get("test")
    # The config.yaml of a run already names the splits that it used, and has the names of the classes.
    is_of_run = cfg.MODEL.ATSS.CLASS_NAMES and "DATASETS.FOLDER" not in given
    for key, name in {"TRAIN": names.get("train"), "TEST": to_test}.items():
        filled_in = (datasets[key] or is_of_run) and set(datasets[key]) <= set(names.values())
        if f"DATASETS.{key}" not in given and not filled_in:
            datasets[key] = (name,) if name else ()
    if not datasets.TRAIN and not datasets.TEST:
        raise InputError(
            f"{datasets.FOLDER}: has no split train, val or test, but {', '.join(names)}; name those to train and to "
            f"test on: DATASETS.TRAIN \"('{next(iter(names.values()))}',)\""
        )
    if not to_test and not datasets.TEST:
        logger.warning(
            "%s has no split val or test: nothing will be evaluated. Move some of its images and their annotations "
            "into a split val, or name another dataset in DATASETS.TEST.", datasets.FOLDER,
        )  # fmt: skip


def _settle_classes(cfg):
    """Set NUM_CLASSES and CLASS_NAMES from the datasets, and check that they agree."""
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


def class_names(dataset: str) -> list[str]:
    """Class names of a registered dataset, in the order of the model's outputs.

    Raises:
        InputError: no dataset of that name, or its annotations cannot be read.
    """
    if dataset not in DatasetCatalog.list():
        raise InputError(
            f"DATASETS: there is no dataset named {dataset!r}; register yours with DATASETS.REGISTER "
            "\"[['name','annotations.json','images/']]\""
        )
    if not hasattr(MetadataCatalog.get(dataset), "thing_classes"):
        read_dataset(dataset, keep=True)  # fills in the names
    return list(MetadataCatalog.get(dataset).thing_classes)
