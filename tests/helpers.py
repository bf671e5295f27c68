"""The tiny model's settings, and the commands run as a user runs them."""

import contextlib
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

from detectron2.config import get_cfg

from atss import add_atss_config

ROOT = Path(__file__).parent.parent
DEMO_CONFIG = str(ROOT / "configs/atss_R_10_FPN_demo.yaml")

# A model that takes a training step in tens of milliseconds.
TINY = {
    "MODEL.RESNETS.STEM_OUT_CHANNELS": 8,
    "MODEL.RESNETS.RES2_OUT_CHANNELS": 8,
    "MODEL.FPN.OUT_CHANNELS": 32,
    "MODEL.ATSS.NUM_CONVS": 1,
    "MODEL.DEVICE": "cpu",
    "DATALOADER.NUM_WORKERS": 0,
    "SOLVER.IMS_PER_BATCH": 4,
    "SOLVER.WARMUP_ITERS": 5,
    "SEED": 1,
}

# Of the run that tests share. Random models find nothing above the usual threshold; with this one there are boxes.
FINISHED_RUN = {
    **TINY,
    "SOLVER.MAX_ITER": 24,
    "MODEL.ATSS.SCORE_THRESH_TEST": 0.001,
    "TEST.EVAL_PERIOD": 12,
    "MODEL.DEVICE": "cuda",
}


def paper_config(**resnets):
    """The paper's config, with other values of MODEL.RESNETS."""
    cfg = get_cfg()
    add_atss_config(cfg)
    cfg.merge_from_file(str(ROOT / "configs/atss_R_50_FPN_1x.yaml"))
    cfg.MODEL.DEVICE = "cpu"
    for key, value in resnets.items():
        cfg.MODEL.RESNETS[key] = value
    return cfg


def pairs(settings):
    return [str(x) for pair in settings.items() for x in pair]


def run(*command, check=True, env=None):
    """Run a Python script of the project from its root; its exit status, output and errors."""
    result = subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONWARNINGS": "ignore", **(env or {})},
    )
    assert not check or result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    return result


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
