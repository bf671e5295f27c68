"""Errors that are the input's fault, not the program's: one line that names what is wrong and says what to do."""

import contextlib
import errno
import logging
import os
import sys

from detectron2.utils import comm

# A disk that is full, a quota or a size that is used up.
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class InputError(Exception):
    """A config, dataset, image or checkpoint that cannot be used. Its text is one line for the user."""


class AgreedError(InputError):
    """An `InputError` that every process of a run raises."""


@contextlib.contextmanager
def one_line_errors():
    """Turn an `InputError`, a full disk, and the end of another process into one line of error and exit status 1."""
    # Detectron2 logs the traceback of whatever ends its training loop; that of an InputError tells nothing.
    logging.getLogger("detectron2.engine.train_loop").addFilter(_has_traceback)
    try:
        yield
    except InputError as error:
        # A data loader's worker hands an error over with its traceback in front.
        line = str(error).strip().splitlines()[-1].removeprefix(f"{InputError.__module__}.InputError: ")
        # Names of files can hold anything.
        line = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)
        agreed = isinstance(error, AgreedError)
        if comm.is_main_process() or not agreed:
            print(f"error: {line}", file=sys.stderr, flush=True)
        if agreed:
            comm.synchronize()  # the first process that ends ends the others
        raise SystemExit(1) from None
    except OSError as error:
        if error.errno not in NO_SPACE:
            raise
        print(f"error: {error.filename or 'writing'}: {os.strerror(error.errno)}", file=sys.stderr)
        raise SystemExit(1) from None
    except RuntimeError as error:
        if not is_end_of_another(error):
            raise
        print(f"error: process {comm.get_rank()}: another process of the run has ended", file=sys.stderr)
        raise SystemExit(1) from None


def is_end_of_another(error):
    """Whether an error of gloo's means that a process with which this one talked has ended."""
    return isinstance(error, RuntimeError) and "gloo/transport" in str(error)


def _has_traceback(record):
    error = record.exc_info and record.exc_info[1]
    no_space = isinstance(error, OSError) and error.errno in NO_SPACE
    return not (isinstance(error, InputError) or no_space or is_end_of_another(error))


def first_line(error):
    """The first line of an exception's text, or its type where it has none."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
