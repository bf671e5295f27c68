"""Stop signals, which job schedulers send some time before they end a job."""

import os
import signal
import threading

from detectron2.utils import comm

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class StopSignals:
    """Context manager that records stop signals instead of ending the process.

    In one of several processes, the end of the process that launched it counts as a stop signal: nobody would end or
    restart the processes that are left.
    """

    def __init__(self):
        self._received = None
        self._launcher = os.getppid()
        self._handlers = {}

    def __enter__(self):
        # Python allows signal handlers in the main thread only.
        if threading.current_thread() is threading.main_thread():
            self._handlers = {number: signal.signal(number, self._record) for number in STOP_SIGNALS}
        return self

    def __exit__(self, *error):
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _record(self, number, frame):
        self._received = signal.Signals(number).name

    def received(self):
        """Return the name of the last stop signal of this process, None if there was none."""
        if not self._received and comm.get_world_size() > 1 and os.getppid() != self._launcher:
            self._received = "the end of its launcher"
        return self._received
