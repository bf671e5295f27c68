"""Progress of training: a line in the log every few iterations, and a line on a terminal that is always up to date."""

import contextlib
import datetime
import logging
import resource
import sys

import torch
from detectron2.utils.events import EventWriter, get_event_storage
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

logger = logging.getLogger(__name__)

# Losses and times are medians over this many iterations.
WINDOW = 20


class ProgressWriter(EventWriter):
    """Base class of both lines: evaluation result `metric` is shown as AP, `batch_size` is that of all processes."""

    def __init__(self, max_iter, metric, batch_size):
        self.max_iter, self.metric, self.batch_size = max_iter, metric, batch_size

    def describe(self):
        """Return dict[str, str]: what is known of losses, AP, times, learning rate and memory."""
        storage = get_event_storage()
        latest = {name: value for name, (value, _) in storage.latest().items()}
        medians = {name: history.median(WINDOW) for name, history in storage.histories().items()}
        shown = {name: f"{value:.4g}" for name, value in medians.items() if "loss" in name and "/" not in name}
        if self.metric in latest:
            shown["AP"] = f"{latest[self.metric]:.1f}"
        if "time" in medians:
            shown["time"] = f"{medians['time']:.4f}"
            shown["images/s"] = f"{self.batch_size / medians['time']:.1f}"
        if "data_time" in medians:
            shown["data_time"] = f"{medians['data_time']:.4f}"
        if "lr" in latest:
            shown["lr"] = f"{latest['lr']:.5g}"
        return {**shown, "max_mem": f"{max_memory() / 2**20:.0f}M"}


def max_memory():
    """Return the peak memory so far in bytes: of the GPU if there is one, else of the process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


class LogLine(ProgressWriter):
    """Log a line in the format of Detectron2's CommonMetricPrinter: `eta: 0:01:20  iter: 219  total_loss: 1.2 ...`."""

    last_iter = -1

    def write(self):
        storage = get_event_storage()
        if storage.iter in (self.last_iter, self.max_iter):
            return
        self.last_iter = storage.iter
        shown = {"iter": storage.iter, **self.describe()}
        if "time" in storage.histories():
            eta = storage.history("time").median(1000) * (self.max_iter - storage.iter - 1)
            storage.put_scalar("eta_seconds", eta, smoothing_hint=False)
            shown = {"eta": datetime.timedelta(seconds=int(eta)), **shown}
        logger.info(" " + "  ".join(f"{name}: {value}" for name, value in shown.items()))


class TerminalLine(ProgressWriter):
    """Update the last line of a terminal; other log records appear above it, those of `LogLine` do not appear."""

    def __init__(self, max_iter, metric, batch_size, file=None):
        super().__init__(max_iter, metric, batch_size)
        self.file, self.bar, self.opened = file or sys.stderr, None, contextlib.ExitStack()

    def write(self):
        iteration = get_event_storage().iter
        done = min(iteration + 1, self.max_iter)
        if self.bar is None:
            self._open(iteration)
        if done == self.bar.n:
            return
        was_drawn = self.bar.update(done - self.bar.n)  # several times a second at most
        if was_drawn or done == self.max_iter:
            shown = {name: text for name, text in self.describe().items() if name not in ("time", "data_time", "lr")}
            line = "  ".join(f"{name.removeprefix('loss_')} {text}" for name, text in shown.items())
            self.bar.set_postfix_str(line.replace("total_loss", "loss").replace("max_mem", "memory"))

    def _open(self, first):
        self.bar = tqdm(
            total=self.max_iter, initial=first, file=self.file, dynamic_ncols=True, smoothing=0.05,
            bar_format="{percentage:3.0f}% {n_fmt}/{total_fmt}  {remaining} left{postfix}",
        )  # fmt: skip
        loggers = [logging.getLogger(name) for name in ("atss", "detectron2", "fvcore")]
        self.opened.enter_context(self.bar)
        self.opened.enter_context(logging_redirect_tqdm(loggers))
        for handler in (handler for logger in loggers for handler in logger.handlers):
            if getattr(handler, "stream", None) in (sys.stdout, sys.stderr):  # not the log file's
                handler.addFilter(lambda record: record.name != __name__)

    def close(self):
        self.opened.close()
