"""The tiny model's settings, and the commands run as a user runs them."""

import contextlib
import json
import multiprocessing
import os
import resource
import runpy
import signal
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import pytest
from detectron2.config import get_cfg
from detectron2.engine import default_argument_parser

from atss import add_atss_config

ROOT = Path(__file__).parent.parent
FORK_SERVER = multiprocessing.get_context("forkserver")
FORK_SERVER.set_forkserver_preload(["atss.commands.train", "atss.commands.predict", "atss.commands.export"])
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
    """Run a Python script of the project from its root, in a process of its own.

    Returns:
        its exit status, output and errors, as `subprocess.run` does.
    """
    result = subprocess.run(
        [sys.executable, *map(str, command)], cwd=ROOT, capture_output=True, text=True,
        env={**os.environ, "PYTHONWARNINGS": "ignore", **(env or {})},
    )  # fmt: skip
    return checked(result, check)


def run_forked(script, *arguments, check=True):
    """The same in a fork of a process that has imported the package already, which saves the seconds for that."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [os.path.join(folder, name) for name in ("stdout", "stderr")]
        process = FORK_SERVER.Process(target=start, args=(script, list(map(str, arguments)), paths))
        process.start()
        process.join()
        printed = [Path(path).read_text() for path in paths]
    return checked(subprocess.CompletedProcess([script, *arguments], process.exitcode, *printed), check)


def start(script, arguments, paths):
    """Become the script, with its output and errors in two files."""
    for descriptor, path in enumerate(paths, 1):
        with open(path, "wb") as file:
            os.dup2(file.fileno(), descriptor)
    sys.stdout, sys.stderr = (open(descriptor, "w", buffering=1, closefd=False) for descriptor in (1, 2))  # noqa: SIM115
    warnings.simplefilter("ignore")
    os.chdir(ROOT)
    sys.argv = [script, *arguments]
    sys.path.insert(0, str(ROOT / os.path.dirname(script)))
    runpy.run_path(script, run_name="__main__")


def checked(result, check):
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
