"""What a run has left in its folder."""

import os
import re
from datetime import datetime
from typing import NamedTuple

from detectron2.config import CfgNode

from ..config import load_config
from ..errors import InputError
from .metrics import read_metrics


class Run(NamedTuple):
    """A run.

    folder: its path. cfg: its config, OUTPUT_DIR being the folder wherever it was then.
    config_file: file that the run was started with, None where the log does not say.
    config_text: all of config.yaml.
    metrics: list of dicts, see `read_metrics`. broken: number of lines that are not readable.
    date: when the last of its figures were written, or its config.
    """

    folder: str
    cfg: CfgNode
    config_file: str | None
    config_text: str
    metrics: list
    broken: int
    date: datetime

    @property
    def name(self):
        return os.path.basename(os.path.abspath(self.folder))


def read_run(folder):
    """Read a folder that a training or an evaluation wrote.

    Raises:
        InputError: it is none, or its config cannot be used.
    """
    path = os.path.join(folder, "config.yaml")
    if not os.path.isdir(folder):
        raise InputError(f"{folder}: no such folder; name the OUTPUT_DIR of a run")
    if not os.path.isfile(path):
        raise InputError(f"{folder}: not the folder of a run: it has no config.yaml")
    # A report needs no GPU, wherever the run was made.
    anywhere = ["MODEL.DEVICE", "cpu", "MODEL.ATSS.ASSIGNER_BACKEND", "auto"]
    cfg = load_config(path, anywhere, read_datasets=False).clone()
    cfg.defrost()
    cfg.OUTPUT_DIR = str(folder)
    cfg.freeze()
    with open(path, encoding="utf-8", errors="replace") as file:
        config_text = file.read()
    metrics, broken = read_metrics(os.path.join(folder, "metrics.json"))
    return Run(str(folder), cfg, config_file(folder), config_text, metrics, broken, date(folder))


def config_file(folder):
    """The last config file that the folder's log names, other than its own config.yaml."""
    try:
        with open(os.path.join(folder, "log.txt"), encoding="utf-8", errors="replace") as file:
            names = re.findall(r"Contents of args\.config_file=(.+):$", file.read(), re.MULTILINE)
    except OSError:
        return None
    own = os.path.abspath(os.path.join(folder, "config.yaml"))
    names = [name for name in names if os.path.abspath(name) != own]
    return names[-1] if names else None


def date(folder):
    """When the last figures or boxes were written."""
    paths = [os.path.join(folder, name) for name in ("config.yaml", "metrics.json")]
    for place, _, names in os.walk(os.path.join(folder, "inference")):
        paths += [os.path.join(place, name) for name in names if name == "coco_instances_results.json"]
    return datetime.fromtimestamp(max(os.path.getmtime(path) for path in paths if os.path.isfile(path)))


def describe_model(cfg):
    """The model in a few words, such as "ResNet-50 with feature pyramid, ATSS"."""
    resnets, name = cfg.MODEL.RESNETS, cfg.MODEL.BACKBONE.NAME
    body = name
    if "resnet" in name:
        body = f"ResNet-{resnets.DEPTH}"
        if resnets.NUM_GROUPS > 1:
            body = f"ResNeXt-{resnets.DEPTH}, {resnets.NUM_GROUPS}x{resnets.WIDTH_PER_GROUP}d"
        if any(resnets.DEFORM_ON_PER_STAGE):
            body += ", deformable"
    return f"{body}; {cfg.MODEL.ATSS.ASSIGNER.removesuffix('Assigner')}"


def describe_schedule(cfg):
    """The schedule in a few words."""
    solver = cfg.SOLVER
    sizes = cfg.INPUT.MIN_SIZE_TRAIN
    side = f"{sizes[0]}" if len(set(sizes)) == 1 else f"{min(sizes)} to {max(sizes)}"
    return (
        f"{solver.MAX_ITER:,} iterations of {solver.IMS_PER_BATCH} images, {solver.OPTIMIZER} at {solver.BASE_LR:g}, "
        f"short side {side}"
    )
