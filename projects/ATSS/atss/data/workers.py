"""Loading in worker processes that may die: killed because memory ran out, say."""

import logging
import signal

from ..errors import InputError

logger = logging.getLogger(__name__)

# Deaths of workers one after the other, without a batch between them, that are no accident.
MAX_DEATHS = 3


def restarted(loader_from, first=0):
    """The batches of a loader, which is made again where it lost a worker.

    Args:
        loader_from: function of a number n -> `torch.utils.data.DataLoader` whose first batch is the n-th of all.
        first: number of the first batch.

    Yields:
        batches.

    Raises:
        InputError: workers die again and again.
    """
    number, deaths = first, 0
    while True:
        try:
            for batch in _iterate(loader_from(number)):
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


def is_death(error):
    """Whether an error of a loader means that a worker died, perhaps while it handed over a batch."""
    if isinstance(error, RuntimeError):
        return "DataLoader worker (pid" in str(error)
    of_mapping = "in DataLoader worker process" in str(error)
    return isinstance(error, (ConnectionError, EOFError, FileNotFoundError)) and not of_mapping


def _iterate(loader):
    """The loader's iterator, which finds dead workers when it waits for them.

    torch would besides raise an error wherever the program is when a worker dies, within a step of the optimizer say.
    """
    before = signal.getsignal(signal.SIGCHLD)
    try:
        return iter(loader)
    finally:
        if signal.getsignal(signal.SIGCHLD) is not before:
            signal.signal(signal.SIGCHLD, before)
