"""Write checkpoint files atomically, and check them before they are used.

torch's files are zip archives with a checksum (CRC-32) of every record and an index at the end, which a truncated file
lacks.
"""

import contextlib
import logging
import math
import os
import re
import zipfile

from ..errors import InputError, first_line

logger = logging.getLogger(__name__)

# Suffix of a file that is being written.
DRAFT = ".draft"


def write_whole(path, write):
    """Write a file atomically and durably: `path` holds the new file or the old one, even after a crash.

    Args:
        path: path of the file.
        write: function that writes to a binary file.

    Raises:
        InputError: the file cannot be written, for example because the disk is full.
    """
    folder, name = os.path.split(path)
    draft = os.path.join(folder, f".{name}{DRAFT}")
    try:
        with open(draft, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
        with contextlib.suppress(OSError):  # not supported by every file system
            _sync_folder(folder)
    except (OSError, RuntimeError) as error:  # torch's writer raises a RuntimeError from an OSError
        with contextlib.suppress(OSError):
            os.unlink(draft)
        raise InputError(f"{path}: cannot be written ({reason(error)})") from error


def reason(error):
    """Why a file could not be written: the innermost cause, since torch only reports that closing failed."""
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__
    return getattr(error, "strerror", None) or first_line(error)


def _sync_folder(folder):
    descriptor = os.open(folder or ".", os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_drafts(folder):
    """Remove the partial files of processes that were killed while writing."""
    for name in os.listdir(folder) if os.path.isdir(folder) else ():
        if name.startswith(".") and name.endswith(DRAFT):
            with contextlib.suppress(OSError):
                os.unlink(os.path.join(folder, name))


def damage(path):
    """Describe the damage to a file of `torch.save`; None if all checksums are right."""
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
    except FileNotFoundError:
        return "it is missing"
    except (OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, ValueError) as error:
        return first_line(error)
    return broken and f"the checksum of {broken} is wrong"


def newest(folder):
    """The checkpoint to resume from: the one in `last_checkpoint` or, if damaged, the latest intact one before it.

    Damaged checkpoints are logged.

    Returns:
        path of the file; None if the folder has no checkpoint.

    Raises:
        InputError: all checkpoints are damaged.
    """
    damaged = []
    for path in _candidates(folder):
        problem = damage(path)
        if not problem:
            if damaged:
                logger.warning("%s: going on from the checkpoint before, %s.", "; ".join(damaged), path)
            return path
        damaged.append(f"{path} is damaged ({problem})")
    if damaged:
        raise InputError(f"{'; '.join(damaged)}: no checkpoint is left to go on from; start anew without --resume")
    return None


def _candidates(folder):
    """The checkpoint in `last_checkpoint`, then those of earlier iterations, latest first.

    Checkpoints of later iterations belong to a previous training in the same folder.
    """
    named = last_name(folder)
    names = [name for name in os.listdir(folder) if of_training(name)] if os.path.isdir(folder) else []
    paths = sorted((os.path.join(folder, n) for n in names if n != named), key=os.path.getmtime, reverse=True)
    if named:
        yield os.path.join(folder, named)
        paths = [path for path in paths if number(path) < number(named)]
    yield from paths


def of_training(name):
    """Whether training may resume from a checkpoint of this name; not from the best one, which may be old."""
    return name.startswith("model_") and name.endswith(".pth") and name != "model_best.pth"


def number(path):
    """The iteration in the name of a checkpoint; infinity for the final one."""
    digits = re.fullmatch(r"model_(\d+)\.pth", os.path.basename(path))
    return int(digits[1]) if digits else math.inf


def last_name(folder):
    """The file name in `last_checkpoint`; None if that is missing or not readable."""
    try:
        with open(os.path.join(folder, "last_checkpoint"), encoding="utf-8") as file:
            name = os.path.basename(file.read(256).strip())
    except (OSError, ValueError):
        return None
    return name or None
