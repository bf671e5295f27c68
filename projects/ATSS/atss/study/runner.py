"""Runs the rows of the study one after another: what is done is skipped, what was interrupted goes on."""

import fcntl
import hashlib
import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from detectron2.config import get_cfg

from ..config import load_config
from ..config.defaults import add_atss_config
from ..errors import InputError
from .positives import positives_per_object
from .tables import METRICS

# Seconds between two looks at a running row, and between two lines about it where there is no terminal.
PERIOD = 1.0
LINE_PERIOD = 300.0
# Keys that make no other result, besides OUTPUT_DIR and SEED.
INDIFFERENT = {
    "CUDNN_BENCHMARK",
    "DATALOADER.NUM_WORKERS",
    "MODEL.ATSS.ASSIGNER_BACKEND",
    "MODEL.DEVICE",
    "OUTPUT_DIR",
    "SEED",
    "SOLVER.CHECKPOINT_PERIOD",
    "TEST.EVAL_PERIOD",
    "VIS_PERIOD",
}


class Run(NamedTuple):
    """A system with a seed.

    name: of the row.
    seed: of the random numbers.
    settings: dict from config key to value, over those of the base config.
    cfg: the whole config.
    folder: OUTPUT_DIR; the same for equal systems, whichever table they stand in.
    """

    name: str
    seed: int
    settings: dict
    cfg: object
    folder: Path

    def result(self):
        """Figures of the run, or None where it is not done: dict with METRICS, in percent, and `positives`."""
        try:
            return json.loads((self.folder / "result.json").read_text())
        except (OSError, ValueError):
            return None


def plan(row, seeds, config_file, opts, output):
    """The runs of a row, one a seed.

    Args:
        row: `Row`.
        seeds: list of int.
        config_file: path of the base config.
        opts: list of keys and values in turn, which go over it.
        output: folder of the study.

    Raises:
        InputError: base config, keys and row do not fit together, or there is not one dataset to evaluate on.
    """
    settings = {**dict(zip(opts[::2], opts[1::2], strict=False)), **row.settings}
    cfg = load_config(config_file, [*opts, *as_opts(row.settings)])
    if len(cfg.DATASETS.TEST) != 1 or not cfg.DATASETS.TRAIN:
        raise InputError(
            "the study needs a dataset in DATASETS.TRAIN and exactly one in DATASETS.TEST, got "
            f"{cfg.DATASETS.TRAIN} and {cfg.DATASETS.TEST}"
        )
    return [
        Run(row.name, seed, settings, cfg, Path(output) / "runs" / identity(cfg) / f"seed-{seed}") for seed in seeds
    ]


def as_opts(settings):
    """dict of config keys -> keys and values in turn, as on a command line."""
    return [str(part) for pair in settings.items() for part in pair]


def identity(cfg):
    """What a system's folder is called: rule and box coding, for people, and a hash of all that makes its result.

    That is what differs from the defaults, so that keys which do not exist yet will not change it.
    """
    defaults = get_cfg()
    add_atss_config(defaults)
    defaults = flat(defaults)
    settings = {k: v for k, v in flat(cfg).items() if k not in INDIFFERENT and defaults.get(k) != v}
    atss = cfg.MODEL.ATSS
    slug = re.sub(r"[^a-z0-9]+", "-", f"{atss.ASSIGNER.removesuffix('Assigner')}-{atss.BOX_CODING}".lower())
    return f"{slug}-{hashlib.sha256(repr(sorted(settings.items())).encode()).hexdigest()[:8]}"


def flat(cfg, prefix=""):
    """A config's values by their dotted keys."""
    values = {}
    for key, value in cfg.items():
        values |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return values


def command(run, train_net, config_file, num_gpus):
    """The command line that trains and evaluates a run."""
    several = ["--num-gpus", str(num_gpus)] if num_gpus > 1 else []
    keys = as_opts({**run.settings, "SEED": run.seed, "OUTPUT_DIR": run.folder})
    return [sys.executable, str(train_net), "--config-file", str(config_file), "--resume", *several, *keys]


def execute(run, line, show):
    """Train and evaluate, and write `result.json` last of all.

    Args:
        run: `Run`.
        line: its command line.
        show: called every second with the dict that Detectron2 wrote last into the run's metrics.json.

    Raises:
        InputError: the command failed; says how. Or the run is under way already.
    """
    run.folder.mkdir(parents=True, exist_ok=True)
    log = run.folder / "study.log"
    # It may have been interrupted after training, before it had its result.
    if not final_evaluation(run):
        with open(log, "ab") as output:
            try:
                # Held by all that have the log open: by training, too, should it outlive this process.
                fcntl.flock(output, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise InputError(f"{run.name}, seed {run.seed}: another process runs it, see {log}") from None
            # A group of its own, so that all its processes end with it.
            child = subprocess.Popen(line, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
            try:
                while child.poll() is None:
                    show(next(iter(metrics(run.folder)[-1:]), {}))
                    time.sleep(PERIOD)
            finally:
                if child.poll() is None:
                    os.killpg(child.pid, signal.SIGTERM)
                child.wait()
        if child.returncode:
            raise InputError(f"{run.name}, seed {run.seed}: {last_line(log)} (all of it: {log})")
    evaluation = final_evaluation(run)
    if not evaluation:
        raise InputError(f"{run.name}, seed {run.seed}: no AP in {run.folder / 'metrics.json'}")
    figures = {name: evaluation.get(f"bbox/{name}", math.nan) for name in METRICS}
    # COCOEvaluator gives no numbers where a model finds nothing. Of sizes that have no object there are none, anyway.
    if math.isnan(figures["AP"]):
        figures |= {"AP": 0.0, "AP50": 0.0, "AP75": 0.0}
    # Positives do not depend on the seed.
    others = (json.loads(path.read_text()) for path in run.folder.parent.glob("seed-*/result.json"))
    figures["positives"] = next((other["positives"] for other in others), None) or positives_per_object(run.cfg)
    draft = run.folder / "result.json.tmp"
    draft.write_text(json.dumps(figures, indent=1))
    os.replace(draft, run.folder / "result.json")


def final_evaluation(run):
    """What the evaluation after the last iteration wrote into metrics.json, None where there was none yet."""
    last = run.cfg.SOLVER.MAX_ITER - 1
    done = [entry for entry in metrics(run.folder) if "bbox/AP" in entry and entry["iteration"] >= last]
    return done[-1] if done else None


def metrics(folder):
    """The dicts that Detectron2 has written into metrics.json so far; a line that is being written is left out."""
    entries = []
    try:
        lines = (folder / "metrics.json").read_text().splitlines()
    except OSError:
        return entries
    for line in lines:
        try:
            entries.append(json.loads(line))
        except ValueError:
            continue
    return entries


def last_line(log):
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "failed without a word"


class Progress:
    """Says how far the study is: a line that updates on a terminal, one every few minutes elsewhere.

    Args:
        runs: list of `Run` to come.
    """

    def __init__(self, runs):
        self.left = len(runs)
        self.total = len(runs)
        self.seconds = []
        self.terminal = sys.stdout.isatty()

    def start(self, run):
        self.title = f"[{self.total - self.left + 1}/{self.total}] {run.name}, seed {run.seed}"
        self.begin, self.max_iter = time.monotonic(), run.cfg.SOLVER.MAX_ITER
        self.said = self.begin
        if not self.terminal:
            print(self.title, flush=True)

    def show(self, latest):
        if not self.terminal and time.monotonic() - self.said < LINE_PERIOD:
            return
        self.said = time.monotonic()
        line = self.title
        if "eta_seconds" in latest:
            this = latest["eta_seconds"]
            usual = sum(self.seconds) / len(self.seconds) if self.seconds else time.monotonic() - self.begin + this
            study = this + usual * (self.left - 1)
            line += f": iteration {latest['iteration']}/{self.max_iter}, {clock(this)} left, {clock(study)} for all"
        self.write(line, "")

    def end(self, run):
        self.left -= 1
        self.seconds.append(time.monotonic() - self.begin)
        line = f"{self.title}: AP {run.result()['AP']:.1f} after {clock(self.seconds[-1])}"
        if self.left:
            line += f", {clock(sum(self.seconds) / len(self.seconds) * self.left)} left for all"
        self.write(line, "\n")

    def write(self, line, end):
        print(*([f"\r{line:<110}"] if self.terminal else [line]), end=end if self.terminal else "\n", flush=True)


def clock(seconds):
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"
