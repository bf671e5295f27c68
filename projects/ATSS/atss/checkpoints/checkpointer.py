"""Detectron2's checkpointer, which refuses checkpoints that do not fit instead of loading some of their weights.

With several processes only the main one reads and writes files, and sends the others what it has read.
"""

import contextlib
import logging
import os

import numpy as np
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.modeling import build_model

from ..errors import InputError, first_line
from ..utils.comm import agreeing, from_main
from .files import newest, remove_drafts, write_whole
from .formats import format_of, is_pretrained
from .reading import read_file, read_weights, weights_in

logger = logging.getLogger(__name__)


class Checkpointer(DetectionCheckpointer):
    """Load and save as Detectron2 does; raise an InputError for a file that is missing, damaged or of another model.

    Checkpoints are written atomically, and never with values that are not finite. Training resumes from the last intact
    one. Files are read without running code.

    Args:
        model: the model.
        save_dir: folder to save checkpoints in and to resume from.
        needed: function that tells whether a checkpoint must have a key of the model; None for all keys.
        remake_head: True to log parameters of the head that do not fit, and keep their random initialisation, unless
            training is resumed.
        allow_pickle: True to read `.pkl` files, see `read_file`.
        checkpointables: other objects to save, by name.
    """

    def __init__(self, model, save_dir="", *, needed=None, remake_head=False, allow_pickle=False, **checkpointables):
        super().__init__(model, save_dir, **checkpointables)
        self.needed, self.remake_head, self.allow_pickle = needed, remake_head, allow_pickle
        self._path, self._resuming = "", False

    def save(self, name, **others):
        """Write `<name>.pth` with the weights, the checkpointables and `others`, in the main process.

        Raises:
            InputError: the weights are not finite, or the file cannot be written; an existing file is kept.
        """
        if not (self.save_dir and self.save_to_disk):
            return
        weights = self.model.state_dict()
        broken = not_finite(weights)
        if broken:
            raise InputError(f"{name}.pth: not written, because {broken} holds numbers that are not finite")
        states = {key: kept.state_dict() for key, kept in self.checkpointables.items()}
        path = os.path.join(self.save_dir, f"{name}.pth")
        logger.info("Saving checkpoint to %s", path)
        write_whole(path, lambda file: torch.save({"model": weights, **states, **others}, file))
        if name != "model_best":  # training does not resume from it
            write_whole(os.path.join(self.save_dir, "last_checkpoint"), lambda file: file.write(f"{name}.pth".encode()))

    def resume_or_load(self, path, *, resume=True):
        """Resume from the last intact checkpoint of the folder if there is one and `resume` is True; else load `path`.

        Sets `resumed`, and returns the parts of the checkpoint that were not used.
        """
        last = from_main(lambda: newest(self.save_dir)) if resume else None
        self.resumed = last is not None
        if self.save_to_disk and self.checkpointables:  # not in a process that only reads
            remove_drafts(self.save_dir)
        return self.load(last) if self.resumed else self.load(path, checkpointables=[])

    def load(self, path, checkpointables=None):
        if not path:
            return super().load(path, checkpointables)
        self._path = path
        self._resuming = checkpointables is None and bool(self.checkpointables)
        logger.info("Loading from %s ...", path)
        checkpoint = from_main(self._read)
        with agreeing():
            self._log_incompatible_keys(self._load_model(checkpoint))
        for key in self.checkpointables if checkpointables is None else checkpointables:
            if key in checkpoint:
                self.checkpointables[key].load_state_dict(checkpoint.pop(key))
        return checkpoint

    def _read(self):
        """What `_path` holds, with its weights by name as "model"; the file is downloaded if necessary."""
        path = self._path
        if "://" in path:
            try:
                path = self.path_manager.get_local_path(path)
            except Exception as error:  # of the network or the file system
                raise InputError(f"{path}: cannot be downloaded ({first_line(error)})") from error
        if not os.path.isfile(path):
            raise InputError(f"{path}: no such checkpoint")
        try:
            checkpoint = in_detectron2s_form(path, read_file(path, self.allow_pickle))
            weights = weights_in(checkpoint["model"])
            if not self._resuming:
                weights = averaged_weights(checkpoint) or weights
            if not all(isinstance(k, str) and isinstance(v, (torch.Tensor, np.ndarray)) for k, v in weights.items()):
                raise TypeError("it holds no weights by name")
            return {**checkpoint, "model": weights}
        except Exception as error:  # damaged files raise all kinds
            weights = {}
            with contextlib.suppress(InputError):
                weights, _ = read_weights(path, self.allow_pickle)  # tolerates objects of other frameworks
            self._refuse_other_codebases(weights)
            if isinstance(error, InputError):
                raise
            reason = f"{type(error).__name__}: {first_line(error)}"
            raise InputError(f"{self._path}: truncated, or not a checkpoint ({reason})") from error

    def _load_model(self, checkpoint):
        if not checkpoint.get("matching_heuristics"):
            self._refuse_other_codebases(checkpoint["model"])
        incompatible = super()._load_model(checkpoint)
        misfits = {key: f"{key} is {theirs}, not {ours}" for key, theirs, ours in incompatible.incorrect_shapes}
        for key in filter(self.needed, incompatible.missing_keys):
            misfits.setdefault(key, f"{key} is missing")
        of_head = {key: misfit for key, misfit in misfits.items() if key.startswith("head.")}
        if self.remake_head and not self._resuming and of_head:
            listed = "; ".join(of_head.values())
            logger.warning("%s: %d keys of the head do not fit and start anew: %s", self._path, len(of_head), listed)
            misfits = {key: misfit for key, misfit in misfits.items() if key not in of_head}
        if misfits:
            listed = "; ".join(list(misfits.values())[:3]) + ("; ..." if len(misfits) > 3 else "")
            only_head = self.needed and misfits == of_head
            hint = "; MODEL.ATSS.REMAKE_HEAD True fine-tunes with a new head" if only_head else ""
            raise InputError(
                f"{self._path}: checkpoint of another model: {len(misfits)} keys of the config's model do not fit: "
                f"{listed}{hint}"
            )
        return incompatible

    def _refuse_other_codebases(self, weights):
        format = format_of({name.removeprefix("module.") for name in weights})
        if format:
            raise InputError(
                f"{self._path}: a checkpoint of {format.title}; make it one of this project with `atss convert`"
            )


def in_detectron2s_form(filename, content):
    """Convert the content of a file to the dict that Detectron2's checkpointer expects, by the file's suffix."""
    if filename.endswith(".pkl") and not ("model" in content and "__author__" in content):
        # Caffe2: detectors have "blobs", ImageNet models do not.
        weights = {key: value for key, value in content.get("blobs", content).items() if not key.endswith("_momentum")}
        return {"model": weights, "__author__": "Caffe2", "matching_heuristics": True}
    if filename.endswith(".pyth"):
        weights = {k: v for k, v in content["model_state"].items() if not k.endswith("num_batches_tracked")}
        return {"model": weights, "__author__": "pycls", "matching_heuristics": True}
    return content if "model" in content else {"model": content}


def not_finite(weights):
    """The first key of a state dict with infinity or NaN, or None."""
    floats = {key: value for key, value in weights.items() if value.is_floating_point()}
    finite = torch.stack([value.isfinite().all() for value in floats.values()]).tolist()  # one synchronisation
    return next((key for key, fine in zip(floats, finite, strict=True) if not fine), None)


def averaged_weights(checkpoint):
    """The weights of the hook `WeightAverage` in a checkpoint, or None."""
    trainer = checkpoint.get("trainer", {})
    hooks = trainer.get("hooks", {}) if isinstance(trainer, dict) else {}
    return hooks.get("WeightAverage", {}).get("weights")


def check_weights(cfg):
    """Raise an InputError, before anything is written, if training cannot start from MODEL.WEIGHTS or those of timm."""
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.DEVICE = "cpu"
    if cfg.MODEL.WEIGHTS:
        options = {"remake_head": cfg.MODEL.ATSS.REMAKE_HEAD, "allow_pickle": cfg.MODEL.ATSS.ALLOW_PICKLE}
        Checkpointer(build_model(cfg), needed=is_pretrained, **options).load(cfg.MODEL.WEIGHTS)
    elif cfg.MODEL.BACKBONE.NAME == "build_timm_fpn_backbone":
        with agreeing():
            build_model(cfg)
