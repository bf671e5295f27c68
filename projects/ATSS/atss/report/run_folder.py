"""What a run has left in its folder."""

import os
import re
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
from detectron2.config import CfgNode

from ..config import load_config
from ..errors import InputError
from .metrics import curve, read_metrics, training_seconds
from .words import duration


class Run(NamedTuple):
    """A run."""

    folder: str
    cfg: CfgNode  # OUTPUT_DIR is the folder, wherever it was during training
    config_file: str | None  # that the run was started with, None where the log does not have it
    config_text: str  # of config.yaml
    metrics: list  # of dicts, see `read_metrics`
    broken: int  # lines of metrics.json that are not readable
    date: datetime  # of its last metrics, detections or config

    @property
    def several(self):
        """Whether the run is tested on several datasets."""
        return len(self.cfg.DATASETS.TEST) > 1

    def curve(self, key, dataset=None):
        """Return the `Curve` of a metric; `dataset` is needed for those of an evaluation."""
        return curve(self.metrics, f"{dataset}/{key}" if dataset and self.several else key)


def read_run(folder):
    """Read the `Run` in a folder; raises an InputError if there is none, or if its config is not valid."""
    path = os.path.join(folder, "config.yaml")
    if not os.path.isdir(folder):
        raise InputError(f"{folder}: no such folder; name the OUTPUT_DIR of a run")
    if not os.path.isfile(path):
        raise InputError(f"{folder}: not the folder of a run: it has no config.yaml")
    # A report needs no GPU, wherever the run was made.
    anywhere = ["MODEL.DEVICE", "cpu", "MODEL.ATSS.ASSIGNER_BACKEND", "auto", "MODEL.ATSS.LOSS_BACKEND", "auto"]
    cfg = load_config(path, anywhere, read_datasets=False).clone()
    cfg.defrost()
    cfg.OUTPUT_DIR = str(folder)
    cfg.freeze()
    config_text = Path(path).read_text(encoding="utf-8", errors="replace")
    metrics, broken = read_metrics(os.path.join(folder, "metrics.json"))
    return Run(str(folder), cfg, config_file(folder), config_text, metrics, broken, last_change(Path(folder)))


def config_file(folder):
    """Return the last config file that the folder's log names, other than its own config.yaml."""
    try:
        log = Path(folder, "log.txt").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    names = re.findall(r"Contents of args\.config_file=(.+):$", log, re.MULTILINE)
    own = os.path.abspath(os.path.join(folder, "config.yaml"))
    return next((name for name in reversed(names) if os.path.abspath(name) != own), None)


def last_change(folder):
    results = folder.glob("inference/**/coco_instances_results.json")
    files = [folder / "config.yaml", folder / "metrics.json", *results]
    return datetime.fromtimestamp(max(file.stat().st_mtime for file in files if file.is_file()))


def run_facts(run):
    """Return pairs of a heading and a text about the model and the training of a `Run`."""
    cfg, solver, sizes = run.cfg, run.cfg.SOLVER, run.cfg.INPUT.MIN_SIZE_TRAIN
    facts = [("Config", run.config_file)] if run.config_file else []
    facts.append(("Model", describe_model(cfg)))
    steps = run.curve("total_loss").iterations
    if not len(steps):
        return facts
    side = f"{sizes[0]}" if len(set(sizes)) == 1 else f"{min(sizes)} to {max(sizes)}"
    size, rate = f"{solver.IMS_PER_BATCH} images", f"{solver.OPTIMIZER} at {solver.BASE_LR:g}"
    schedule = f"{solver.MAX_ITER:,} iterations of {size}, {rate}, short side {side}"
    facts += [("Trained on", ", ".join(cfg.DATASETS.TRAIN)), ("Schedule", schedule)]
    if steps[-1] < solver.MAX_ITER:
        facts.append(("Ended", f"after {steps[-1]:,} of {solver.MAX_ITER:,} iterations"))
    seconds = training_seconds(run.metrics)
    if seconds > 0:
        each = float(np.median(run.curve("time").values))
        speed = f"{each:.3g} s per iteration, {solver.IMS_PER_BATCH / each:.3g} images per second"
        facts += [("Training time", f"{duration(seconds)}, without evaluations"), ("Speed", speed)]
    return facts


def describe_model(cfg):
    """Return the model in a few words, such as "ResNet-50; ATSS"."""
    resnets, body = cfg.MODEL.RESNETS, cfg.MODEL.BACKBONE.NAME
    if "resnet" in body:
        body = f"ResNet-{resnets.DEPTH}"
        if resnets.NUM_GROUPS > 1:
            body = f"ResNeXt-{resnets.DEPTH}, {resnets.NUM_GROUPS}x{resnets.WIDTH_PER_GROUP}d"
        if any(resnets.DEFORM_ON_PER_STAGE):
            body += ", deformable"
    return f"{body}; {cfg.MODEL.ATSS.ASSIGNER.removesuffix('Assigner')}"
