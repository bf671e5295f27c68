"""Detectron2's checkpointer, which refuses checkpoints that do not fit instead of loading what happens to."""

import contextlib
import logging
import os

import numpy as np
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.modeling import build_model

from ..errors import InputError, first_line
from .formats import format_of, is_pretrained
from .reading import read_weights, weights_in

logger = logging.getLogger("atss.checkpoints")


class Checkpointer(DetectionCheckpointer):
    """Loads and saves as Detectron2 does; raises `InputError` for a file that is missing, damaged or of another model.

    Args:
        model: the model.
        save_dir: folder to save checkpoints in and to resume from.
        needed: function of a key of the model, whether a checkpoint must hold it; None for the whole model.
        remake_head: True to leave what does not fit of the head at its random start, and to name it, unless training
            is resumed.
        checkpointables: what else is saved.
    """

    def __init__(self, model, save_dir="", *, needed=None, remake_head=False, **checkpointables):
        super().__init__(model, save_dir, **checkpointables)
        self.needed = needed
        self.remake_head = remake_head
        self._path = ""
        self._resuming = False

    def load(self, path, checkpointables=None):
        if path and "://" not in path and not os.path.isfile(path):
            raise InputError(f"{path}: no such checkpoint")
        self._path = path
        self._resuming = checkpointables is None and bool(self.checkpointables)
        return super().load(path, checkpointables)

    def tag_last_checkpoint(self, last_filename_basename):
        # The best checkpoint is not what training goes on from.
        if last_filename_basename != "model_best.pth":
            super().tag_last_checkpoint(last_filename_basename)

    def _load_file(self, filename):
        try:
            checkpoint = super()._load_file(filename)
            weights = weights_in(checkpoint["model"])
            if not self._resuming:
                weights = averaged_weights(checkpoint) or weights
            if not all(isinstance(k, str) and isinstance(v, (torch.Tensor, np.ndarray)) for k, v in weights.items()):
                raise TypeError("it holds no weights by name")
            return {**checkpoint, "model": weights}
        except Exception as error:  # whatever a damaged file makes a reader raise
            weights = {}
            with contextlib.suppress(InputError):
                weights, _ = read_weights(filename)  # some frameworks keep objects besides
            self._refuse_other_codebases(weights)
            reason = f"{type(error).__name__}: {first_line(error)}"
            raise InputError(f"{self._path}: truncated, or not a checkpoint ({reason})") from error

    def _load_model(self, checkpoint):
        if not checkpoint.get("matching_heuristics"):
            self._refuse_other_codebases(checkpoint["model"])
        incompatible = super()._load_model(checkpoint)
        wrong = {key: f"{key} is {theirs}, not {ours}" for key, theirs, ours in incompatible.incorrect_shapes}
        missing = (key for key in filter(self.needed, incompatible.missing_keys) if key not in wrong)
        misfits = {**wrong, **{key: f"{key} is missing" for key in missing}}
        of_head = {key: misfits[key] for key in misfits if key.startswith("head.")}
        if self.remake_head and not self._resuming and of_head:
            logger.warning(
                "%s: %d keys of the head do not fit and start anew: %s",
                self._path,
                len(of_head),
                "; ".join(of_head.values()),
            )
            misfits = {key: misfits[key] for key in misfits if key not in of_head}
        if misfits:
            listed = "; ".join(list(misfits.values())[:3]) + ("; ..." if len(misfits) > 3 else "")
            hint = ""
            if self.needed and misfits == of_head:
                hint = "; MODEL.ATSS.REMAKE_HEAD True (in a LazyConfig train.remake_head) fine-tunes with a new head"
            raise InputError(
                f"{self._path}: checkpoint of another model: {len(misfits)} keys of the config's model do not fit: "
                f"{listed}{hint}"
            )
        return incompatible

    def _refuse_other_codebases(self, weights):
        format = format_of({name.removeprefix("module.") for name in weights})
        if format:
            raise InputError(
                f"{self._path}: a checkpoint of {format.title}; make it one of this project with "
                "tools/convert_checkpoint.py"
            )


def averaged_weights(checkpoint):
    """The weights of `WeightAverage` in what the trainer has saved, None where it kept none."""
    hooks = checkpoint.get("trainer", {}).get("hooks", {})
    return hooks.get("WeightAverage", {}).get("weights")


def check_weights(cfg):
    """See, before anything is written, that training can start from MODEL.WEIGHTS.

    Raises:
        InputError: the checkpoint is missing, damaged or of another model.
    """
    if cfg.MODEL.WEIGHTS:
        cfg = cfg.clone()
        cfg.defrost()
        cfg.MODEL.DEVICE = "cpu"
        Checkpointer(build_model(cfg), needed=is_pretrained, remake_head=cfg.MODEL.ATSS.REMAKE_HEAD).load(
            cfg.MODEL.WEIGHTS
        )
