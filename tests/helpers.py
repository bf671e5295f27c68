"""The tiny model's settings, and the commands run as a user runs them."""

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from detectron2.config import get_cfg
from detectron2.engine import default_argument_parser

from atss import add_atss_config

ROOT = Path(__file__).parent.parent
DEMO_CONFIG = str(ROOT / "configs/atss_R_10_FPN_demo.yaml")

# A model that takes a training step in tens of milliseconds.
TINY = {
    "MODEL.RESNETS.STEM_OUT_CHANNELS": 8, "MODEL.RESNETS.RES2_OUT_CHANNELS": 8, "MODEL.FPN.OUT_CHANNELS": 32,
    "MODEL.ATSS.NUM_CONVS": 1, "MODEL.DEVICE": "cpu", "DATALOADER.NUM_WORKERS": 0, "SOLVER.IMS_PER_BATCH": 4,
    "SOLVER.WARMUP_ITERS": 5, "SEED": 1,
}  # fmt: skip
# Random models find nothing above the usual threshold; with this one there are boxes to compare.
SHORT = {**TINY, "SOLVER.MAX_ITER": 24, "MODEL.ATSS.SCORE_THRESH_TEST": 0.001}


def paper_config(path=ROOT / "configs/atss_R_50_FPN_1x.yaml", **resnets):
    """The paper's config, or another one, with other values of MODEL.RESNETS."""
    cfg = get_cfg()
    add_atss_config(cfg)
    cfg.merge_from_file(str(path), allow_unsafe=False)
    cfg.MODEL.DEVICE = "cpu"
    for key, value in resnets.items():
        cfg.MODEL.RESNETS[key] = value
    return cfg


def pairs(settings):
    return [str(x) for pair in settings.items() for x in pair]


def run(*command, check=True, env=None):
    """Run a Python script of the project from its root; its exit status, output and errors."""
    result = subprocess.run(
        [sys.executable, *map(str, command)], cwd=ROOT, capture_output=True, text=True,
        env={**os.environ, "PYTHONWARNINGS": "ignore", **(env or {})},
    )  # fmt: skip
    assert not check or result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    return result


def train_command(settings, *flags):
    """A command line of `train_net.py` with the demo's config, to `run`."""
    return ["train_net.py", "--config-file", DEMO_CONFIG, *flags, *pairs(settings)]


def train(settings, *flags, after_step=None):
    """Train, or evaluate, in this process as `train_net.py` does, without a report; return the trainer.

    `after_step` is called with the trainer after every step, after all other hooks.
    """
    from atss.commands import train as command

    trainers = []

    class Trainer(command.Trainer):
        def __init__(self, cfg):
            super().__init__(cfg)
            trainers.append(self)

        def after_step(self):
            super().after_step()
            if after_step:
                after_step(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command, "Trainer", Trainer)
        patch.setattr(command, "report", lambda folder: None)
        command.main(default_argument_parser().parse_args(train_command(settings, *flags)[1:]))
    return trainers[0] if trainers else None


def error_line(result):
    """The one line that a failed command ends with; nothing of a traceback beside it."""
    assert result.returncode != 0
    assert "Traceback" not in result.stdout + result.stderr, result.stdout[-2000:] + result.stderr[-2000:]
    line = result.stderr.strip().splitlines()[-1]
    assert line.startswith("error: "), result.stderr[-2000:]
    return line


@contextlib.contextmanager
def file_size_limit(num_bytes):
    """The system refuses larger files, as a full disk does."""
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)


def compiled_kernels(capability, which):
    """Kernels of the "assigner", the "losses" or the "suppression", compiled for a GPU that need not be there.

    A list of dicts.
    """
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "tests/modeling/compile_kernels.py", str(capability), which]
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    return json.loads(result.stdout.splitlines()[-1])
