"""Errors that are the input's fault, not the program's: one line that names what is wrong and says what to do."""

import contextlib
import logging
import sys


class InputError(Exception):
    """A config, dataset, picture or checkpoint that cannot be used. Its text is one line for the user."""


@contextlib.contextmanager
def one_line_errors():
    """Turn an `InputError` into one line on standard error and exit status 1."""
    # Detectron2 logs the traceback of whatever ends its training loop; that of an InputError tells nothing.
    logging.getLogger("detectron2.engine.train_loop").addFilter(_is_not_input_error)
    try:
        yield
    except InputError as error:
        # A data loader's worker hands an error over with its traceback in front.
        line = str(error).strip().splitlines()[-1].removeprefix(f"{InputError.__module__}.InputError: ")
        print(f"error: {line}", file=sys.stderr)
        raise SystemExit(1) from None


def _is_not_input_error(record):
    return not (record.exc_info and isinstance(record.exc_info[1], InputError))


def first_line(error):
    """The first line of an exception's text, or its type where it has none."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
