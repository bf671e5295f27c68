"""From a config file and the command line to a config that is ready to run."""

import argparse
import logging
import sys
from collections.abc import Sequence

import torch
from detectron2.config import CfgNode, get_cfg

from ..errors import InputError
from ..modeling.assigners import settle_backend
from .checks import check_config
from .datasets import register_datasets, settle_classes
from .defaults import add_atss_config
from .yaml_file import merge

logger = logging.getLogger(__name__)


def load_config(config_file: str, opts: Sequence[str] = (), read_datasets: bool = True) -> CfgNode:
    """Read a config, check it, register its datasets, set the device and the classes; return it frozen.

    Args:
        config_file: yaml file; it cannot run code.
        opts: alternating keys and values, which override the file.
        read_datasets: False to take the classes from MODEL.ATSS.CLASS_NAMES, if they are given as in the config.yaml of
            a trained model, without reading the datasets.

    Raises:
        InputError: a file, key or value that cannot be used; datasets that do not fit each other or NUM_CLASSES.
    """
    cfg = _merged(config_file, opts)
    check_config(cfg)
    read_datasets = read_datasets or not cfg.MODEL.ATSS.CLASS_NAMES
    register_datasets(cfg, list(opts)[::2], look=read_datasets)
    _settle_device(cfg)
    if read_datasets:
        settle_classes(cfg)
    cfg.freeze()
    return cfg


def wanted_device(config_file: str, opts: Sequence[str] = ()) -> str:
    """The device of a config, "cuda" or "cpu", without reading its datasets; raises as `load_config`."""
    cfg = _merged(config_file, opts)
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
    args.opts += opts
    return args


def _merged(config_file, opts):
    cfg = get_cfg()
    add_atss_config(cfg)
    merge(cfg, config_file, list(opts))
    return cfg


def _settle_device(cfg):
    """Fall back to the CPU without a CUDA GPU, and check the assigner's backend."""
    if cfg.MODEL.DEVICE.startswith("cuda") and not torch.cuda.is_available():
        logger.warning("MODEL.DEVICE is %s, but there is no CUDA GPU here: running on the CPU.", cfg.MODEL.DEVICE)
        if cfg.SOLVER.AMP.ENABLED:
            logger.warning("SOLVER.AMP needs a CUDA GPU: training in full precision.")
        cfg.MODEL.DEVICE, cfg.SOLVER.AMP.ENABLED = "cpu", False
    try:
        settle_backend(cfg.MODEL.ATSS.ASSIGNER_BACKEND, torch.device(cfg.MODEL.DEVICE))
    except ValueError as error:
        raise InputError(f"MODEL.ATSS.ASSIGNER_BACKEND: {error}") from error
