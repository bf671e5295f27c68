"""A run that is asked to stop writes a checkpoint first."""

import logging
import os
import signal
import threading

from detectron2.engine import HookBase
from detectron2.utils import comm

from .ending import EndOfTraining
from .launch import NOTICES

logger = logging.getLogger(__name__)


class Notice:
    """What a scheduler sends before it takes the machine away, SIGTERM or SIGUSR1; within a `with` it is noted.

    In one of several processes the end of the one that has started it is a notice, too: nobody would start again what
    is left, or end it.
    """

    def __init__(self):
        self.received = None
        self._parent = os.getppid()
        self._before = {}

    def __enter__(self):
        # Elsewhere Python lets nobody listen; a program that trains in a thread has its own signals.
        if threading.current_thread() is threading.main_thread():
            self._before = {notice: signal.signal(notice, self._note) for notice in NOTICES}
        return self

    def __exit__(self, *error):
        for notice, handler in self._before.items():
            signal.signal(notice, handler)

    def _note(self, number, frame):
        self.received = signal.Signals(number).name

    def __call__(self):
        """The notice that came, None until then."""
        if comm.get_world_size() > 1 and os.getppid() != self._parent:
            self.received = self.received or "the end of its launcher"
        return self.received


class StopOnNotice(HookBase):
    """Writes a checkpoint and ends training after the step at which a process has had a notice.

    Belongs behind all hooks that change what a checkpoint holds. Runs in every process.

    Args:
        checkpointer: writes `model_<iteration>.pth`.
        notice: function without arguments -> text of a notice that all processes know of, None where there is none.
    """

    def __init__(self, checkpointer, notice):
        self.checkpointer = checkpointer
        self.notice = notice

    def after_step(self):
        step, last = self.trainer.iter, self.trainer.max_iter
        if not self.notice() or step + 1 == last:
            return
        self.checkpointer.save(f"model_{step:07d}", iteration=step)
        raise EndOfTraining(
            f"Stopped by {self.notice()} after {step + 1} of {last} iterations; with --resume training goes on.",
            finished=False,
        )
