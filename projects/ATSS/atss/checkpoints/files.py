"""Checkpoint files that are whole: written so that a crash leaves the old or the new, and checked before they are used.

torch's files are zip archives with a checksum (CRC-32) of every record, and their index at the end: a file that was cut
off has none.
"""

import contextlib
import logging
import math
import os
import re
import zipfile

from ..errors import InputError, first_line

logger = logging.getLogger(__name__)

# Of a file that is being written.
DRAFT = ".draft"


def write_whole(path, write):
    """Write a file that is there whole, on the disk, or not at all.

    Args:
        path: of the file.
        write: function of a binary file, which fills it.

    Raises:
        InputError: it cannot be written: the disk is full, say. What was at `path` before is still there.
    """
    folder, name = os.path.split(path)
    draft = os.path.join(folder, f".{name}{DRAFT}")
    try:
        with open(draft, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
        with contextlib.suppress(OSError):  # not every file system can
            _sync_folder(folder)
    except (OSError, RuntimeError) as error:  # torch's writer makes the one of the other
        with contextlib.suppress(OSError):
            os.unlink(draft)
        raise InputError(f"{path}: cannot be written ({reason(error)})") from error


def reason(error):
    """Why a file could not be written; torch says only that something went wrong when its file could not be closed."""
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
    """Remove what a process that was killed while it wrote has left."""
    for name in os.listdir(folder) if os.path.isdir(folder) else ():
        if name.startswith(".") and name.endswith(DRAFT):
            with contextlib.suppress(OSError):
                os.unlink(os.path.join(folder, name))


def damage(path):
    """What is wrong with a file that `torch.save` has written: a text, None where every checksum is right."""
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
    except FileNotFoundError:
        return "it is missing"
    except (OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, ValueError) as error:
        return first_line(error)
    return broken and f"the checksum of {broken} is wrong"


def newest(folder):
    """The checkpoint to go on from: the one that `last_checkpoint` names or, if that is damaged, the one before it.

    The log says which were damaged.

    Returns:
        path of the file, None where the folder has none.

    Raises:
        InputError: there are checkpoints, and all of them are damaged.
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
    """The named checkpoint, then those that were written before it, latest first.

    In a folder that was trained in before there may be some of later iterations: those are of another training.
    """
    named = last_name(folder)
    names = [name for name in os.listdir(folder) if of_training(name)] if os.path.isdir(folder) else []
    paths = sorted((os.path.join(folder, n) for n in names if n != named), key=os.path.getmtime, reverse=True)
    if named:
        yield os.path.join(folder, named)
        paths = [path for path in paths if number(path) < number(named)]
    yield from paths


def of_training(name):
    """Whether training goes on from a checkpoint of that name: not from the best one, which may be far back."""
    return name.startswith("model_") and name.endswith(".pth") and name != "model_best.pth"


def number(path):
    """The iteration in the name of a checkpoint, infinity for the final one."""
    digits = re.fullmatch(r"model_(\d+)\.pth", os.path.basename(path))
    return int(digits[1]) if digits else math.inf


def last_name(folder):
    """The name of the last checkpoint, as `last_checkpoint` has it, None where that is missing or senseless."""
    try:
        with open(os.path.join(folder, "last_checkpoint"), encoding="utf-8") as file:
            name = os.path.basename(file.read(256).strip())
    except (OSError, ValueError):
        return None
    return name or None
