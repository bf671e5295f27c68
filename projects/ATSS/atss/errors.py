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
    """A config, dataset, picture or checkpoint that cannot be used. Its text is one line for the user."""


class AgreedError(InputError):
    """An `InputError` that every process of a run raises."""


@contextlib.contextmanager
def one_line_errors():
    """Turn an `InputError`, and a full disk, into one line on standard error and exit status 1."""
    # Detectron2 logs the traceback of whatever ends its training loop; that of an InputError tells nothing.
    logging.getLogger("detectron2.engine.train_loop").addFilter(_has_traceback)
    try:
        yield
    except InputError as error:
        # A data loader's worker hands an error over with its traceback in front.
        line = str(error).strip().splitlines()[-1].removeprefix(f"{InputError.__module__}.InputError: ")
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


def _has_traceback(record):
    error = record.exc_info and record.exc_info[1]
    return not (isinstance(error, InputError) or (isinstance(error, OSError) and error.errno in NO_SPACE))


def first_line(error):
    """The first line of an exception's text, or its type where it has none."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
