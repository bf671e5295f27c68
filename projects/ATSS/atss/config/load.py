"""What every command does first: from a config file and key-value pairs to a config that can be run."""

import logging
import sys

import torch
from detectron2.config import get_cfg

from ..errors import InputError
from ..modeling.assigners import settle_backend
from .checks import check_config
from .datasets import register_datasets, settle_classes
from .defaults import add_atss_config
from .yaml_file import merge

logger = logging.getLogger(__name__)


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
    cfg = _merged(config_file, opts)
    check_config(cfg)
    read_datasets = read_datasets or not cfg.MODEL.ATSS.CLASS_NAMES
    register_datasets(cfg, given=list(opts)[::2], look=read_datasets)
    _settle_device(cfg)
    if read_datasets:
        settle_classes(cfg)
    cfg.freeze()
    return cfg


def wanted_device(config_file, opts=()):
    """What a config runs on, "cuda" or "cpu", without a look at its datasets.

    Raises:
        InputError: as of `load_config`.
    """
    cfg = _merged(config_file, opts)
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


def _merged(config_file, opts):
    cfg = get_cfg()
    add_atss_config(cfg)
    merge(cfg, config_file, list(opts))
    return cfg


def _settle_device(cfg):
    """Run on the CPU where there is no CUDA GPU, and see that the assigner's backend runs there."""
    if cfg.MODEL.DEVICE.startswith("cuda") and not torch.cuda.is_available():
        logger.warning("MODEL.DEVICE is %s, but there is no CUDA GPU here: running on the CPU.", cfg.MODEL.DEVICE)
        if cfg.SOLVER.AMP.ENABLED:
            logger.warning("SOLVER.AMP needs a CUDA GPU: training in full precision.")
        cfg.MODEL.DEVICE, cfg.SOLVER.AMP.ENABLED = "cpu", False
    try:
        settle_backend(cfg.MODEL.ATSS.ASSIGNER_BACKEND, torch.device(cfg.MODEL.DEVICE))
    except ValueError as error:
        raise InputError(f"MODEL.ATSS.ASSIGNER_BACKEND: {error}") from error
