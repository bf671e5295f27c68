"""Detectron2's checkpointer, which refuses checkpoints that do not fit instead of loading what happens to."""

import contextlib
import os

import numpy as np
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.modeling import build_model

from ..errors import InputError, first_line
from .formats import format_of, is_pretrained
from .reading import read_weights, weights_in


class Checkpointer(DetectionCheckpointer):
    """Loads and saves as Detectron2 does; raises `InputError` for a file that is missing, damaged or of another model.

    Args:
        model: the model.
        save_dir: folder to save checkpoints in and to resume from.
        needed: function of a key of the model, whether a checkpoint must hold it; None for the whole model.
        checkpointables: what else is saved.
    """

    def __init__(self, model, save_dir="", *, needed=None, **checkpointables):
        super().__init__(model, save_dir, **checkpointables)
        self.needed = needed
        self._path = ""

    def load(self, path, *args, **kwargs):
        if path and "://" not in path and not os.path.isfile(path):
            raise InputError(f"{path}: no such checkpoint (MODEL.WEIGHTS)")
        self._path = path
        return super().load(path, *args, **kwargs)

    def _load_file(self, filename):
        try:
            checkpoint = super()._load_file(filename)
            weights = weights_in(checkpoint["model"])
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
        misfits = [*wrong.values(), *(f"{key} is missing" for key in missing)]
        if misfits:
            listed = "; ".join(misfits[:3]) + ("; ..." if len(misfits) > 3 else "")
            raise InputError(
                f"{self._path}: checkpoint of another model: {len(misfits)} keys of the config's model do not fit: "
                f"{listed}"
            )
        return incompatible

    def _refuse_other_codebases(self, weights):
        format = format_of({name.removeprefix("module.") for name in weights})
        if format:
            raise InputError(
                f"{self._path}: a checkpoint of {format.title}; make it one of this project with "
                "tools/convert_checkpoint.py"
            )


def check_weights(cfg):
    """See, before anything is written, that training can start from MODEL.WEIGHTS.

    Raises:
        InputError: the checkpoint is missing, damaged or of another model.
    """
    if cfg.MODEL.WEIGHTS:
        cfg = cfg.clone()
        cfg.defrost()
        cfg.MODEL.DEVICE = "cpu"
        Checkpointer(build_model(cfg), needed=is_pretrained).load(cfg.MODEL.WEIGHTS)
