"""Runs of several processes, on CPUs over gloo."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from detectron2.engine import default_argument_parser

from atss.data.shapes import SHAPES, generate
from atss.engine import launch
from atss.engine.launch import free_port
from atss.errors import InputError
from tests.helpers import ROOT, SHORT, TINY, error_line, run, train_command

pytestmark = pytest.mark.slow

SETTINGS = {**SHORT, "SOLVER.MAX_ITER": 4, "TEST.EVAL_PERIOD": 2}
TWO = ["--num-gpus", "2", "--dist-url", "auto"]
ONE_THREAD = {"OMP_NUM_THREADS": "1"}


def start(command, **options):
    return subprocess.Popen([sys.executable, *map(str, command)], cwd=ROOT, text=True,
                            env={**os.environ, **ONE_THREAD}, **options)  # fmt: skip


def test_two_processes_train_as_one_does(tmp_path):
    """Batches of 2 in each of two, of 4 in one: the same losses, with their normalisers, and the same weights."""
    generate(tmp_path / "train", 24, seed=1, style=SHAPES._replace(sizes=((160, 160),)))
    settings = {
        **TINY, "DATASETS.REGISTER": [["same_size", str(tmp_path / "train.json"), str(tmp_path / "train")]],
        "DATASETS.TRAIN": ("same_size",), "DATASETS.TEST": "()", "SOLVER.MAX_ITER": 20, "MODEL.RESNETS.NORM": "GN",
        "MODEL.RESNETS.STEM_OUT_CHANNELS": 32, "MODEL.RESNETS.RES2_OUT_CHANNELS": 32,
        # Adam makes much of gradients that are rounding errors, those of a bias before a normalisation.
        "SOLVER.OPTIMIZER": "SGD", "SOLVER.BASE_LR": 0.01,
    }  # fmt: skip
    losses, weights = [], []
    for processes in ("1", "2"):
        folder = tmp_path / processes
        _, *arguments = train_command({**settings, "OUTPUT_DIR": folder}, "--num-gpus", processes, "--dist-url", "auto")
        run("tests/same_size.py", *arguments, env=ONE_THREAD)
        losses.append(json.loads((folder / "losses.json").read_text()))
        weights.append(torch.load(folder / "model_final.pth", weights_only=True)["model"])

    assert len(losses[0]) == 20 and losses[0][0].keys() == {"total_loss", "loss_cls", "loss_box", "loss_centerness"}
    for row, row_of_two in zip(*losses, strict=True):
        assert row == pytest.approx(row_of_two, abs=1e-9)
    for key, value in weights[0].items():
        assert value.dtype == torch.float64 or not value.is_floating_point()
        assert torch.allclose(value.double(), weights[1][key].double(), rtol=0, atol=1e-9), key


def test_torchrun_on_two_machines(shapes, tmp_path):
    """Two torchruns on this one: it trains, evaluates once each time, and writes one report."""
    out = tmp_path / "out"
    port = free_port()
    torchrun = ["-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1", "--rdzv-backend", "c10d",
                "--rdzv-endpoint", f"127.0.0.1:{port}"]  # fmt: skip
    training = train_command({**SETTINGS, **shapes, "OUTPUT_DIR": out})
    agents = [start([*torchrun, *training], stdout=subprocess.PIPE, stderr=subprocess.STDOUT) for _ in range(2)]
    printed = [process.communicate(timeout=300)[0] for process in agents]

    assert [process.returncode for process in agents] == [0, 0], printed[0][-3000:] + printed[1][-3000:]
    assert (out / "metrics.json").read_text().count('"bbox/AP"') == 2, "on the way and at the end"
    assert sum(text.count("Report of the run") for text in printed) == 1
    assert sum(text.count("Starting training from iteration 0") for text in printed) == 1, "the main process logs"
    assert (out / "report.html").exists() and (out / "model_final.pth").exists()
    assert "World size: 2" in (out / "log.txt").read_text()


@pytest.mark.parametrize("send", [os.kill, os.killpg], ids=["launcher", "all"])
def test_a_stop_signal_ends_all_processes_together(shapes, tmp_path, send):
    """Sent to the launcher, or to all processes that it has started, too."""
    out, log = tmp_path / "out", tmp_path / "log"
    settings = {**SETTINGS, **shapes, "SOLVER.MAX_ITER": 10000, "TEST.EVAL_PERIOD": 0, "OUTPUT_DIR": out}
    settings["SOLVER.CHECKPOINT_PERIOD"] = 2
    with open(log, "w") as file:
        process = start(train_command(settings, *TWO), stdout=file, stderr=file, start_new_session=True)
    while not (out / "last_checkpoint").exists() and process.poll() is None:
        time.sleep(0.2)

    send(process.pid, signal.SIGTERM)

    status, printed = process.wait(timeout=120), log.read_text()
    assert status == 0, printed[-3000:]
    assert printed.count("Stopped by SIGTERM after") == 1 and "Traceback" not in printed
    last = torch.load(out / (out / "last_checkpoint").read_text(), weights_only=True)["iteration"]
    assert f"Stopped by SIGTERM after {last + 1} of 10000 iterations" in printed


def test_bad_input_of_several_processes_is_one_line(shapes, tmp_path):
    settings = {**SETTINGS, **shapes, "MODEL.WEIGHTS": "README.md", "OUTPUT_DIR": tmp_path / "out"}

    result = run(*train_command(settings, *TWO), check=False, env=ONE_THREAD)

    assert "README.md" in error_line(result) and result.returncode == 1
    assert result.stderr.count("error: ") == 1 and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "flags, message",
    [
        ("--num-gpus 64", "--num-gpus 64: this machine has"),
        ("--num-machines 2 --dist-url auto", "--dist-url auto: several machines"),
        ("--num-machines 2 --dist-url file:///tmp/x", "expected tcp://HOST:PORT"),
        ("--num-machines 2 --dist-url tcp://host:port", "expected tcp://HOST:PORT"),
    ],
)
def test_a_launch_that_is_not_possible_is_refused(flags, message):
    with pytest.raises(InputError, match=message):
        launch(print, default_argument_parser().parse_args(flags.split()), lambda: "cpu")


def test_one_process_runs_in_this_one():
    called = []

    launch(called.append, default_argument_parser().parse_args([]), lambda: pytest.fail("the device does not matter"))

    assert len(called) == 1
