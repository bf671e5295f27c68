"""Write checkpoint files atomically, and check them before they are used."""

import contextlib
import fnmatch
import logging
import math
import os
import re
import zipfile
import zlib

from ..errors import InputError, first_line

logger = logging.getLogger(__name__)

DRAFT = ".draft"  # suffix of a file that is being written


def write_whole(path, write):
    """Write a file atomically and durably: `path` holds the new file or the old one, even after a crash.

    `write` is a function that writes to a binary file. Raises an InputError if that fails, for example on a full disk.
    """
    folder, name = os.path.split(path)
    draft = os.path.join(folder, f".{name}{DRAFT}")
    try:
        with open(draft, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:  # not supported by every file system
            descriptor = os.open(folder or ".", os.O_RDONLY)
            stack.callback(os.close, descriptor)
            os.fsync(descriptor)
    except (OSError, RuntimeError) as error:  # torch's writer raises a RuntimeError from an OSError
        with contextlib.suppress(OSError):
            os.unlink(draft)
        raise InputError(f"{path}: cannot be written ({reason(error)})") from error


def reason(error):
    """Why a file could not be written: the innermost cause, since torch only reports that closing failed."""
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__
    return getattr(error, "strerror", None) or first_line(error)


def remove_drafts(folder):
    """Remove the partial files of processes that were killed while writing."""
    for name in os.listdir(folder) if os.path.isdir(folder) else ():
        if name.startswith(".") and name.endswith(DRAFT):
            with contextlib.suppress(OSError):
                os.unlink(os.path.join(folder, name))


def damage(path):
    """Describe the damage to a file of `torch.save`, a zip archive with checksums (CRC-32); None if all are right."""
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
    except FileNotFoundError:
        return "it is missing"
    except (OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, ValueError, zlib.error) as error:
        return first_line(error)
    return broken and f"the checksum of {broken} is wrong"


def newest(folder):
    """The checkpoint to resume from: the one in `last_checkpoint` or, if damaged, the latest intact one before it.

    Returns its path, or None if the folder has none. Damaged ones are logged; an InputError is raised if all are.
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

    Checkpoints of later iterations belong to a previous training in the same folder, and the best one may be old.
    """
    named = last_name(folder)
    names = fnmatch.filter(os.listdir(folder), "model_*.pth") if os.path.isdir(folder) else []
    names = [name for name in names if name not in (named, "model_best.pth")]
    if named:
        yield os.path.join(folder, named)
        names = [name for name in names if iteration(name) < iteration(named)]
    yield from sorted((os.path.join(folder, name) for name in names), key=os.path.getmtime, reverse=True)


def iteration(name):
    """The iteration in the name of a checkpoint; infinity for the final one."""
    digits = re.fullmatch(r"model_(\d+)\.pth", name)
    return int(digits[1]) if digits else math.inf


def last_name(folder):
    """The file name in `last_checkpoint`; None if that is missing or not readable."""
    try:
        with open(os.path.join(folder, "last_checkpoint"), encoding="utf-8") as file:
            return os.path.basename(file.read(256).strip()) or None
    except (OSError, ValueError):
        return None
