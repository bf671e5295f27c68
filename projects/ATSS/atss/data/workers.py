"""Loading in worker processes, which are restarted if one dies, for example because memory ran out."""

import logging
import os
import signal

from detectron2.utils import comm

from ..errors import InputError

logger = logging.getLogger(__name__)

# Number of deaths in a row, without a batch between them, after which loading stops.
MAX_DEATHS = 3
# Maximum number of workers that a process starts unless it is told otherwise: they load more images a second than a GPU
# trains on (docs/performance.md).
MAX_WORKERS = 4


def number_of_workers(wanted):
    """The number of workers of this process for a value of DATALOADER.NUM_WORKERS.

    -1 is a worker for each core that this process and the others of this machine may use, but at most MAX_WORKERS.
    """
    if wanted >= 0:
        return wanted
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(MAX_WORKERS, max(1, cores // comm.get_local_size()))


def restarted(loader_from, first=0):
    """Yield the batches of a loader from batch number `first` on; make the loader again if it loses a worker.

    `loader_from` is a function of a number n that returns a `torch.utils.data.DataLoader` whose first batch is the
    n-th. Raises InputError if workers die again and again.
    """
    number, deaths = first, 0
    while True:
        batches = None
        try:
            batches = _iterate(loader_from(number))
            for batch in batches:
                yield batch
                number, deaths = number + 1, 0
            return
        except (RuntimeError, OSError, EOFError) as error:
            if not is_death(error):
                raise
            deaths += 1
            if deaths == MAX_DEATHS:
                raise InputError(
                    f"data workers died {MAX_DEATHS} times before batch {number + 1} was ready; is memory short? Set "
                    "DATALOADER.NUM_WORKERS lower"
                ) from error
            logger.warning("A data worker died before batch %d was ready; all start again there.", number + 1)
        finally:
            # Tracebacks keep the iterator alive. The garbage collector would stop its workers late, and wait 5 seconds
            # for each of them, as it closes the queue that tells them to stop first.
            getattr(batches, "_shutdown_workers", lambda: None)()


def is_death(error):
    """Whether an error of a loader means that a worker died, perhaps while it sent a batch."""
    if isinstance(error, RuntimeError):
        return "DataLoader worker (pid" in str(error)
    of_mapping = "in DataLoader worker process" in str(error)
    return isinstance(error, (ConnectionError, EOFError, FileNotFoundError)) and not of_mapping


def _iterate(loader):
    """The loader's iterator, which notices dead workers only when it waits for them.

    torch would also raise an error wherever the program is when a worker dies, such as within a step of the optimizer.
    """
    before = signal.getsignal(signal.SIGCHLD)
    try:
        return iter(loader)
    finally:
        if signal.getsignal(signal.SIGCHLD) is not before:
            signal.signal(signal.SIGCHLD, before)
