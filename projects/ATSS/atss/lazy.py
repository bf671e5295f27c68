"""What the command for LazyConfigs does first: from a config file and overrides to a config that can be run."""

import os

import torch
from detectron2.config import LazyConfig, instantiate
from detectron2.data import DatasetCatalog, MetadataCatalog
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from .assigners import settle_backend
from .checkpoints import Checkpointer
from .data import register_coco_format
from .errors import InputError, first_line
from .run import available

NEEDED = ("model", "optimizer", "lr_multiplier", "dataloader.train", "train")


def load_lazy_config(config_file, overrides=()):
    """Read a LazyConfig, register its datasets and settle the device.

    Args:
        config_file: Python file, which is run, or the config.yaml that a run has left.
        overrides: list of `key=value` in Hydra's grammar; `+key=value` for a key that the config does not have.

    Returns:
        the config, a `DictConfig`.

    Raises:
        InputError: a file, key or value that cannot be used.
    """
    cfg = _read(config_file)
    for override in overrides:
        _override(cfg, override)
    for entry in cfg.dataloader.get("register") or []:
        register_coco_format(*_triple(entry))
    for key in ("max_iter", "eval_period", "log_period"):
        if not isinstance(cfg.train[key], int):
            raise InputError(f"train.{key}: expected a number of iterations, got {cfg.train[key]!r}")
    _settle_device(cfg)
    return cfg


def wanted_device(config_file, overrides=()):
    """What a config runs on, "cuda" or "cpu", without a look at its datasets.

    Raises:
        InputError: as of `load_lazy_config`.
    """
    cfg = _read(config_file)
    for override in overrides:
        _override(cfg, override)
    return "cuda" if cfg.train.device.startswith("cuda") and torch.cuda.is_available() else "cpu"


def build(cfg, key):
    """The object that a config describes at a key.

    Raises:
        InputError: naming the key: an argument that is unknown, missing or refused.
    """
    return _instantiate(key, OmegaConf.select(cfg, key))


def read_data(cfg, split):
    """The dicts of a dataset that `dataloader.train` or `dataloader.test` names; its classes are the head's.

    Args:
        cfg: the config.
        split: "train" or "test".

    Returns:
        list of dicts in Detectron2's standard form.

    Raises:
        InputError: no such dataset, files that are missing or malformed, or another number of classes.
    """
    key = f"dataloader.{split}.dataset"
    names = cfg.dataloader[split].dataset.names
    names = [names] if isinstance(names, str) else names
    for name in names:
        if name not in DatasetCatalog.list():
            raise InputError(
                f"{key}.names: there is no dataset named {name!r}; register yours with "
                f"dataloader.register=[[{name},annotations.json,pictures/]]"
            )
    try:
        dicts = build(cfg, key)
    except OSError as error:
        raise InputError(
            f"{error.filename}: cannot read this file of {', '.join(names)} ({error.strerror}); set "
            "DETECTRON2_DATASETS to the folder of your datasets"
        ) from error
    expected = OmegaConf.select(cfg, "model.head.num_classes")
    for name in names:
        found = len(MetadataCatalog.get(name).thing_classes)
        if found != expected:
            raise InputError(f"model.head.num_classes is {expected}, but dataset {name} has {found} classes")
    return dicts


def build_loader(cfg, split, dicts):
    """The loader `dataloader.train` or `dataloader.test`, of dicts that have been read."""
    return _instantiate(f"dataloader.{split}", {**cfg.dataloader[split], "dataset": dicts})


def build_with_weights(cfg, **options):
    """The model, on the CPU, with the weights of `train.init_checkpoint` where there is one.

    Args:
        cfg: the config.
        options: of `Checkpointer`.

    Raises:
        InputError: an argument of the model, or the checkpoint, cannot be used.
    """
    path = cfg.train.init_checkpoint or ""
    if path and "://" not in path and not os.path.isfile(path):
        raise InputError(f"{path}: no such checkpoint (train.init_checkpoint)")
    model = build(cfg, "model")
    Checkpointer(model, **options).load(path)
    return model


def _instantiate(key, described):
    try:
        return instantiate(described)
    except (TypeError, ValueError, AssertionError, KeyError, AttributeError, OmegaConfBaseException) as error:
        raise InputError(f"{key}: {first_line(error)}") from error


def _read(path):
    if not path:
        raise InputError("--config-file is missing; see configs/lazy/ for the ones that come with the project")
    if not os.path.isfile(path):
        raise InputError(f"{path}: no such config file")
    try:
        cfg = LazyConfig.load(path)
    except Exception as error:  # whatever the Python in it raises
        error = error.__cause__ or error
        raise InputError(f"{path}: {type(error).__name__}: {first_line(error)}") from error
    for key in NEEDED:
        if OmegaConf.select(cfg, key) is None:
            raise InputError(f"{path}: not a LazyConfig to train with: it has no {key!r}")
    return cfg


def _override(cfg, override):
    key, equals, _ = override.partition("=")
    if not equals:
        raise InputError(f"{override}: expected key=value, such as train.max_iter=100")
    nothing = object()
    try:
        known = key.startswith("+") or OmegaConf.select(cfg, key, default=nothing) is not nothing
        if known:
            LazyConfig.apply_overrides(cfg, [override])
    except Exception as error:  # Hydra's, OmegaConf's or Detectron2's
        raise InputError(f"{override}: {first_line(error)}") from error
    if not known:
        raise InputError(f"{key}: the config has no such key; +{override} would add it")


def _triple(entry):
    if OmegaConf.is_list(entry) and len(entry) == 3 and all(isinstance(part, str) for part in entry):
        return entry
    raise InputError(f"dataloader.register: expected [name, annotation file, picture folder], got {entry}")


def _settle_device(cfg):
    train = cfg.train
    train.device, train.amp.enabled = available(train.device, train.amp.enabled, "train.device", "train.amp")
    try:
        settle_backend(OmegaConf.select(cfg, "model.head.assigner.backend") or "auto", torch.device(train.device))
    except ValueError as error:
        raise InputError(f"model.head.assigner.{error}") from error
