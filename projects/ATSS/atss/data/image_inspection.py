"""What is wrong with a dataset, found by opening every image."""

import hashlib
import os
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations
from typing import NamedTuple

import tqdm

from ..errors import InputError
from .image_io import open_image, read_image
from .problems import located, problems_of

KINDS = {
    "transparent images": "they are put on white",
    "images of 16 bits": "their 65,536 greys become 256",
    "CMYK images": "they become RGB",
    "grey images": "they become RGB",
}


class Look(NamedTuple):
    """What was seen of an image file.

    error: why it cannot be read, None where it can.
    size: (width, height), upright, as training sees it.
    stored: (width, height) before the EXIF orientation turned it.
    kinds: those of KINDS that it is.
    digest: the same for files with the same bytes.
    """

    error: str | None
    size: tuple = (0, 0)
    stored: tuple = (0, 0)
    kinds: tuple = ()
    digest: bytes = b""


def inspect_images(tables):
    """Open every image of some datasets, with a progress bar on a terminal.

    Args:
        tables: list of `Table` of different names. Images that are not there are left out.

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
        problems += located(table.name, of_dataset(table, looks))
    return problems + shared(tables, looks)


def look(path):
    """`Look` at an image file."""
    try:
        height, width = read_image(path).shape[:2]
    except InputError as error:
        return Look(str(error))
    with open_image(path) as image:
        stored, kinds = image.size, tuple(kinds_of(image))
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha1").digest()
    return Look(None, (width, height), stored, kinds, digest)


def kinds_of(image):
    """Which of KINDS a Pillow image is, from its header."""
    if image.has_transparency_data:
        yield "transparent images"
    if image.mode.startswith("I"):
        yield "images of 16 bits"
    elif image.mode == "CMYK":
        yield "CMYK images"
    elif image.mode in ("1", "L", "LA"):
        yield "grey images"


def of_dataset(table, looks):
    """Problems of one dataset.

    Args:
        looks: dict from path to `Look`.
    """
    sizes = dict(zip(table.file_names, map(tuple, table.sizes.tolist()), strict=True))
    seen = {path: looks[path] for path in sizes if path in looks}
    read = {path: at for path, at in seen.items() if at.error is None}
    wrong = [path for path, at in read.items() if 0 not in sizes[path] and at.size != sizes[path]]
    problems = problems_of(
        "error", "images that cannot be read", [at for at in seen.values() if at.error], len(seen), "images",
        "replace them, or remove them and their entries", lambda at: at.error,
    )  # fmt: skip
    problems += problems_of(
        "error", "images of another size than their entry says", wrong, len(seen), "images",
        "correct width and height in the annotations; boxes that were drawn on another image need to be drawn anew",
        lambda path: describe_size(path, sizes[path], read[path]),
    )  # fmt: skip
    copies = defaultdict(list)
    for path, at in read.items():
        copies[at.digest].append(path)
    problems += problems_of(
        "warning", "images that are there twice", [c for c in copies.values() if len(c) > 1], len(seen), "images",
        "remove the copies, after a look at whether their objects are the same", " = ".join,
    )  # fmt: skip
    for kind, treated in KINDS.items():
        problems += problems_of(
            "note", kind, [path for path, at in read.items() if kind in at.kinds], len(seen), "images", treated
        )
    return problems


def describe_size(path, expected, at):
    line = f"{path}: is {at.size[0]} x {at.size[1]}, not {expected[0]} x {expected[1]}"
    turned = at.size != at.stored and expected == at.stored
    return line + (", which it is before its EXIF orientation turns it" if turned else "")


def shared(tables, looks):
    """Files with the same bytes in two datasets."""
    problems = []
    digests = {path: at.digest for path, at in looks.items() if at.error is None}
    for first, second in combinations(tables, 2):
        there = {digests[path]: path for path in second.file_names if path in digests}
        pairs = [(path, there[digests[path]]) for path in first.file_names if digests.get(path) in there]
        found = problems_of(
            "warning", "images in both", pairs, len(first.file_names), "images",
            "figures are too good on images that were trained on: leave them out of one of the two",
            lambda pair: pair[0] if pair[0] == pair[1] else " = ".join(pair),
        )  # fmt: skip
        problems += located(f"{first.name}, {second.name}", found)
    return problems
