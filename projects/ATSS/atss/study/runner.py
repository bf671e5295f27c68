"""Run the rows of the study one after another; skip finished runs, resume interrupted ones."""

import datetime
import fcntl
import hashlib
import json
import math
import os
import re
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from detectron2.config import CfgNode, get_cfg

from ..config import add_atss_config, load_config
from ..config.yaml_file import flat
from ..errors import InputError
from ..report.metrics import read_metrics
from .positives import positives_per_object
from .tables import METRICS

# Seconds between two checks of a running row, and between two lines about it where there is no terminal.
PERIOD = 1.0
LINE_PERIOD = 300.0
# Keys that do not change the result; the seed has a folder of its own.
IRRELEVANT = {
    "CUDNN_BENCHMARK", "DATALOADER.NUM_WORKERS", "MODEL.ATSS.ASSIGNER_BACKEND", "MODEL.ATSS.LOSS_BACKEND",
    "MODEL.DEVICE", "OUTPUT_DIR", "SEED", "SOLVER.CHECKPOINT_PERIOD", "TEST.EVAL_PERIOD", "VIS_PERIOD",
}  # fmt: skip


class Run(NamedTuple):
    """A row of a table, with a seed."""

    name: str  # of the row
    seed: int  # of the random numbers
    settings: dict  # from config key to value, changes to the base config
    cfg: CfgNode  # the whole config
    folder: Path  # OUTPUT_DIR, the same for equal systems of different tables

    def __str__(self):
        return f"{self.name}, seed {self.seed}"

    def result(self):
        """Return a dict with METRICS, in percent, and "positives" (per object); None if the run is not done."""
        try:
            return json.loads((self.folder / "result.json").read_text())
        except (OSError, ValueError):
            return None


def plan(row, seeds, config_file, opts, output):
    """Return the runs of a `Row`, one per seed, in the study's folder `output`.

    `opts` are config keys and values in turn, changes to the base config; the row has precedence.

    Raises:
        InputError: the config is invalid, or does not name exactly one dataset to evaluate on.
    """
    settings = {**dict(zip(opts[::2], opts[1::2], strict=False)), **row.settings}
    cfg = load_config(config_file, [*opts, *as_opts(row.settings)])
    if len(cfg.DATASETS.TEST) != 1 or not cfg.DATASETS.TRAIN:
        raise InputError(
            "the study needs a dataset in DATASETS.TRAIN and exactly one in DATASETS.TEST, got "
            f"{cfg.DATASETS.TRAIN} and {cfg.DATASETS.TEST}"
        )
    folder = Path(output, "runs", system_name(cfg))
    return [Run(row.name, seed, settings, cfg, folder / f"seed-{seed}") for seed in seeds]


def as_opts(settings):
    """Return a dict's keys and values in turn, as on a command line."""
    return [str(part) for pair in settings.items() for part in pair]


def system_name(cfg):
    """Return a folder name: label assignment, box coding, and a hash of all relevant keys that are not the default.

    Defaults are omitted, so that new keys of later versions do not change the name.
    """
    defaults = get_cfg()
    add_atss_config(defaults)
    defaults = dict(flat(defaults))
    settings = {k: v for k, v in flat(cfg) if k not in IRRELEVANT and defaults.get(k) != v}
    name = f"{cfg.MODEL.ATSS.ASSIGNER.removesuffix('Assigner')}-{cfg.MODEL.ATSS.BOX_CODING}".lower()
    digest = hashlib.sha256(repr(sorted(settings.items())).encode()).hexdigest()
    return f"{re.sub('[^a-z0-9]+', '-', name)}-{digest[:8]}"


def command(run, train, config_file, num_gpus):
    """Return the command line that trains and evaluates a run; it begins with that of training, `train`."""
    gpus = ["--num-gpus", str(num_gpus)] if num_gpus > 1 else []
    keys = as_opts({**run.settings, "SEED": run.seed, "OUTPUT_DIR": run.folder})
    return [*train, "--config-file", str(config_file), "--resume", *gpus, *keys]


def execute(run, command, show):
    """Train and evaluate a `Run` by its command line; write `result.json` last.

    `show` is called every second with the dict that training wrote last to metrics.json.

    Raises:
        InputError: the command has failed, has not evaluated, or is running already.
    """
    run.folder.mkdir(parents=True, exist_ok=True)
    # A run may have been interrupted after training, before its result was written.
    if not final_evaluation(run):
        train(run, command, show)
    if not (evaluation := final_evaluation(run)):
        raise InputError(f"{run}: no AP in {run.folder / 'metrics.json'}")
    result = {name: evaluation.get(f"bbox/{name}", math.nan) for name in METRICS}
    # COCOEvaluator gives NaN if there are no detections; APs, APm and APl are NaN, too, if there are no such objects.
    if math.isnan(result["AP"]):
        result |= {"AP": 0.0, "AP50": 0.0, "AP75": 0.0}
    # Positives do not depend on the seed.
    others = [json.loads(path.read_text())["positives"] for path in run.folder.parent.glob("seed-*/result.json")]
    result["positives"] = others[0] if others else positives_per_object(run.cfg)
    draft = run.folder / "result.json.tmp"
    draft.write_text(json.dumps(result, indent=1))
    draft.replace(run.folder / "result.json")


def train(run, command, show):
    log = run.folder / "study.log"
    with open(log, "ab") as output:
        try:
            # Every process that has the log open holds the lock, also training that outlives this process.
            fcntl.flock(output, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"{run}: another process runs it, see {log}") from None
        # In a process group of its own, so that all its processes can be ended together.
        child = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            while child.poll() is None:
                entries = metrics(run)
                show(entries[-1] if entries else {})
                time.sleep(PERIOD)
        finally:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGTERM)
            child.wait()
    if child.returncode:
        last_line = log.read_text(errors="replace").strip().rpartition("\n")[2] or "failed without a message"
        raise InputError(f"{run}: {last_line} (whole log: {log})")


def final_evaluation(run):
    """Return the evaluation after the last iteration from metrics.json, None if there is none yet."""
    last = run.cfg.SOLVER.MAX_ITER - 1
    evaluations = [entry for entry in metrics(run) if "bbox/AP" in entry and entry["iteration"] >= last]
    return evaluations[-1] if evaluations else None


def metrics(run):
    """Return the dicts in metrics.json; a line that is being written is skipped."""
    return read_metrics(run.folder / "metrics.json")[0]


class Progress:
    """Print the progress of `num_runs` runs: a line that updates on a terminal, a line every few minutes elsewhere."""

    def __init__(self, num_runs):
        self.num_runs, self.terminal = num_runs, sys.stdout.isatty()
        self.seconds = []  # per finished run

    def start(self, run):
        self.title, self.max_iter = f"[{len(self.seconds) + 1}/{self.num_runs}] {run}", run.cfg.SOLVER.MAX_ITER
        self.started = time.monotonic()
        self.print("")

    def show(self, latest):
        now = time.monotonic()
        if "eta_seconds" in latest and (self.terminal or now - self.printed >= LINE_PERIOD):
            eta = latest["eta_seconds"]
            per_run = statistics.mean(self.seconds or [now - self.started + eta])
            eta_of_all = eta + per_run * (self.num_runs - len(self.seconds) - 1)
            iteration = f"{latest['iteration']:.0f}/{self.max_iter}"
            self.print(f": iteration {iteration}, {clock(eta)} left, {clock(eta_of_all)} for all")

    def end(self, run):
        self.seconds.append(time.monotonic() - self.started)
        left = self.num_runs - len(self.seconds)
        of_all = f", {clock(statistics.mean(self.seconds) * left)} left for all" if left else ""
        self.print(f": AP {run.result()['AP']:.1f} after {clock(self.seconds[-1])}{of_all}", "\n")

    def print(self, text, end=""):
        self.printed = time.monotonic()
        if self.terminal:
            print(f"\r{self.title + text:<110}", end=end, flush=True)
        else:
            print(self.title + text, flush=True)


def clock(seconds):
    return str(datetime.timedelta(seconds=round(seconds)))
