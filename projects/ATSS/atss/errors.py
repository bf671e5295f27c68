"""Errors of the user's input: one line that names what is wrong and how to fix it."""

import contextlib
import errno
import logging
import os
import sys

from detectron2.utils import comm

# The disk is full, or a quota or size limit is reached.
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class InputError(Exception):
    """A config, dataset, image or checkpoint that cannot be used. The message is one line for the user."""


class AgreedError(InputError):
    """An `InputError` that all processes of a run raise together."""


@contextlib.contextmanager
def one_line_errors():
    """Report an `InputError`, a full disk or the end of another process in one line, and exit with status 1."""
    # Detectron2 logs the traceback of any exception in its training loop; that of an InputError is of no use.
    logging.getLogger("detectron2.engine.train_loop").addFilter(_has_traceback)
    agreed = False
    try:
        yield
        return
    except InputError as error:
        agreed = isinstance(error, AgreedError)
        # Errors from a data loader's worker begin with its traceback.
        line = str(error).strip().splitlines()[-1].removeprefix(f"{InputError.__module__}.InputError: ")
        # File names can contain control characters.
        line = printable(line)
    except OSError as error:
        if error.errno not in NO_SPACE:
            raise
        line = f"{error.filename or 'writing'}: {os.strerror(error.errno)}"
    except RuntimeError as error:
        if not is_end_of_another(error):
            raise
        line = f"process {comm.get_rank()}: another process of the run has ended"
    if comm.is_main_process() or not agreed:
        print(f"error: {line}", file=sys.stderr, flush=True)
    if agreed:
        comm.synchronize()  # the launcher kills all processes when the first one exits
    raise SystemExit(1)


def is_end_of_another(error: BaseException) -> bool:
    """Whether gloo raised the error because another process has exited."""
    return isinstance(error, RuntimeError) and "gloo/transport" in str(error)


def _has_traceback(record):
    error = record.exc_info and record.exc_info[1]
    no_space = isinstance(error, OSError) and error.errno in NO_SPACE
    return not (isinstance(error, InputError) or no_space or is_end_of_another(error))


def printable(text: str) -> str:
    """A text in one line, in which characters that cannot be printed are escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def first_line(error: BaseException) -> str:
    """The first line of an exception's message, or its type if the message is empty."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
