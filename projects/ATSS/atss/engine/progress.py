"""How training goes: a line in the log now and then, and on a terminal one that is always up to date."""

import datetime
import logging
import resource
import sys

import torch
from detectron2.utils.events import EventWriter, get_event_storage
from tqdm import tqdm

logger = logging.getLogger(__name__)

# Losses and times are medians over this many iterations.
WINDOW = 20


def describe(storage, metric, batch_size):
    """What there is to say of an iteration, as a dict from name to text.

    Args:
        storage: Detectron2's `EventStorage`.
        metric: name of the figure that evaluations give ("bbox/AP").
        batch_size: images per iteration, of all processes.
    """
    histories, latest = storage.histories(), storage.latest()
    said = {name: f"{h.median(WINDOW):.4g}" for name, h in histories.items() if "loss" in name and "/" not in name}
    if metric in latest:
        said["AP"] = f"{latest[metric][0]:.1f}"
    if "time" in histories:
        seconds = histories["time"].median(WINDOW)
        said["time"] = f"{seconds:.4f}"
        said["images/s"] = f"{batch_size / seconds:.1f}"
    if "data_time" in histories:
        said["data_time"] = f"{histories['data_time'].median(WINDOW):.4f}"
    if "lr" in histories:
        said["lr"] = f"{histories['lr'].latest():.5g}"
    return {**said, "max_mem": f"{max_memory() / 2**20:.0f}M"}


def max_memory():
    """The most memory that was in use so far, in bytes: of the GPU where there is one, else of the process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


class LogLine(EventWriter):
    """Writes a line into the log, in the form of Detectron2's: `eta: 0:01:20  iter: 219  total_loss: 1.2 ...`.

    Args:
        max_iter: iterations of the whole training.
        metric, batch_size: see `describe`.
    """

    def __init__(self, max_iter, metric, batch_size):
        self.max_iter = max_iter
        self.metric = metric
        self.batch_size = batch_size
        self.last = -1

    def write(self):
        storage = get_event_storage()
        if storage.iter in (self.last, self.max_iter):
            return
        self.last = storage.iter
        said = {}
        if "time" in storage.histories():
            seconds = storage.history("time").median(1000) * (self.max_iter - storage.iter - 1)
            storage.put_scalar("eta_seconds", seconds, smoothing_hint=False)
            said["eta"] = str(datetime.timedelta(seconds=int(seconds)))
        said |= {"iter": storage.iter, **describe(storage, self.metric, self.batch_size)}
        logger.info(" " + "  ".join(f"{name}: {value}" for name, value in said.items()))


class TerminalLine(EventWriter):
    """Keeps the last line of a terminal up to date; other records of the log go above it, those of `LogLine` nowhere.

    Args:
        max_iter, metric, batch_size: as for `LogLine`.
        file: the terminal.
    """

    def __init__(self, max_iter, metric, batch_size, file=None):
        self.max_iter = max_iter
        self.metric = metric
        self.batch_size = batch_size
        self.file = file or sys.stderr
        self.bar = None
        self.consoles = []

    def write(self):
        storage = get_event_storage()
        done = min(storage.iter + 1, self.max_iter)
        if self.bar is None:
            self._open(storage.iter)
        if done == self.bar.n:
            return
        was_due = self.bar.update(done - self.bar.n)  # several times a second at most
        if was_due or done == self.max_iter:
            said = describe(storage, self.metric, self.batch_size)
            shown = {name: text for name, text in said.items() if name not in ("time", "data_time", "lr")}
            self.bar.set_postfix_str("  ".join(f"{short(name)} {text}" for name, text in shown.items()))

    def _open(self, first):
        self.bar = tqdm(
            total=self.max_iter, initial=first, file=self.file, dynamic_ncols=True, smoothing=0.05,
            bar_format="{percentage:3.0f}% {n_fmt}/{total_fmt}  {remaining} left{postfix}",
        )  # fmt: skip
        for name in ("atss", "detectron2", "fvcore"):
            for handler in logging.getLogger(name).handlers:
                if getattr(handler, "stream", None) in (sys.stdout, sys.stderr):
                    handler.addFilter(self._above)
                    self.consoles.append(handler)

    def _above(self, record):
        if record.name == logger.name:
            return False
        self.bar.clear()
        return True

    def close(self):
        for handler in self.consoles:
            handler.removeFilter(self._above)
        if self.bar is not None:
            self.bar.close()


def short(name):
    return name.removeprefix("loss_").replace("total_loss", "loss").replace("max_mem", "memory")
