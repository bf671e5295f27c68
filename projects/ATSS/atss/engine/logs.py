"""The package's log in a run's log file."""

import logging


def log_into(output_dir):
    """Let the log of this package go where Detectron2's goes since its `default_setup`: also into log.txt.

    Args:
        output_dir: folder of the run.
    """
    ours, theirs = logging.getLogger("atss"), logging.getLogger("detectron2")
    ours.handlers = list(theirs.handlers)
