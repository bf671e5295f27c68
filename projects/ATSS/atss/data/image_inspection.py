"""Finds problems of datasets by opening every image."""

import hashlib
import os
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import tqdm

from ..errors import InputError
from .image_io import open_image, read_image
from .inspection import shared_images
from .problems import located, problems_of


class Look(NamedTuple):
    """What is known of an image file that was opened.

    error: why it cannot be read, None where it can.
    size: (width, height), upright, as training sees it.
    stored: (width, height) without the rotation of the EXIF orientation.
    kinds: kinds of `Problem` that it is a note of, such as "grey images".
    digest: the same for files with the same bytes.
    """

    error: str | None
    size: tuple = (0, 0)
    stored: tuple = (0, 0)
    kinds: tuple = ()
    digest: bytes = b""


def inspect_images(tables):
    """Open every image of datasets, with a progress bar on a terminal.

    Args:
        tables: list of `Table` of different names. Images that are missing are skipped.

    Returns:
        list of `Problem` with the names of their datasets.
    """
    paths = [path for path in dict.fromkeys(p for table in tables for p in table.file_names) if os.path.isfile(path)]
    # Decoding and hashing do not hold Python's lock.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = list(tqdm.tqdm(pool.map(look, paths), "Images", len(paths), disable=None, leave=False))
    looks = dict(zip(paths, found, strict=True))
    problems = []
    for table in tables:
        problems += located(table.name, problems_in(table, looks))
    digests = {path: at.digest for path, at in looks.items() if at.error is None}

    def same_bytes(first, second):
        there = {digests[path]: path for path in second if path in digests}
        return [(path, there[digests[path]]) for path in first if digests.get(path) in there]

    return problems + shared_images(tables, same_bytes)


def look(path):
    """Open an image file; its `Look`."""
    try:
        height, width = read_image(path).shape[:2]
    except InputError as error:
        return Look(str(error))
    with open_image(path) as image:
        stored, kinds = image.size, tuple(kinds_of(image))
    digest = hashlib.sha1()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return Look(None, (width, height), stored, kinds, digest.digest())


def kinds_of(image):
    """Kinds of `Problem` of a Pillow image, from its header."""
    if image.has_transparency_data:
        yield "transparent images"
    if image.mode.startswith("I"):
        yield "images of 16 bits"
    elif image.mode == "CMYK":
        yield "CMYK images"
    elif image.mode in ("1", "L", "LA"):
        yield "grey images"


def problems_in(table, looks):
    """Problems of one dataset.

    Args:
        looks: dict from path to `Look`.
    """
    sizes = dict(zip(table.file_names, map(tuple, table.sizes.tolist()), strict=True))
    total = sum(path in looks for path in sizes)
    unreadable, wrong = [], []
    copies, kinds = defaultdict(list), defaultdict(list)
    for path, size in sizes.items():
        at = looks.get(path)
        if at is None:
            continue
        if at.error:
            unreadable.append(at.error)
            continue
        if 0 not in size and at.size != size:
            wrong.append(describe_size(path, size, at))
        copies[at.digest].append(path)
        for kind in at.kinds:
            kinds[kind].append(path)
    duplicates = [" = ".join(paths) for paths in copies.values() if len(paths) > 1]
    problems = [
        *problems_of("images that cannot be read", unreadable, total),
        *problems_of("images of another size than their entry says", wrong, total),
        *problems_of("duplicate images", duplicates, total),
    ]
    for kind, paths in kinds.items():
        problems += problems_of(kind, paths, total)
    return problems


def describe_size(path, expected, at):
    line = f"{path}: is {at.size[0]} x {at.size[1]}, not {expected[0]} x {expected[1]}"
    rotated = at.size != at.stored and expected == at.stored
    return line + (", which it is before its EXIF orientation rotates it" if rotated else "")
