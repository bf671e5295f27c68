"""Finds problems of datasets by opening every image."""

import hashlib
import os
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import tqdm

from ..errors import InputError
from .image_io import open_image, to_rgb
from .inspection import shared_images
from .problems import located, problems_of


class ImageFacts(NamedTuple):
    """What is known of an image file that has been opened."""

    error: str | None  # why it cannot be read
    size: tuple = (0, 0)  # (width, height), upright, as in training
    stored: tuple = (0, 0)  # (width, height) before the rotation of the EXIF orientation
    kinds: tuple = ()  # kinds of `Problem` that the image is an example of, such as "grey images"
    digest: bytes | None = None  # hash of the file's bytes


def inspect_images(tables):
    """Open every image of a list of `Table`, with a progress bar on a terminal, and return a list of `Problem`.

    Missing images are skipped.
    """
    paths = [path for path in dict.fromkeys(p for table in tables for p in table.file_names) if os.path.isfile(path)]
    # Decoding and hashing release the global interpreter lock.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = list(tqdm.tqdm(pool.map(facts_of, paths), "Images", len(paths), disable=None, leave=False))
    facts = dict(zip(paths, found, strict=True))
    problems = [problem for table in tables for problem in located(table.name, problems_in(table, facts))]
    digests = {path: fact.digest for path, fact in facts.items()}
    return problems + shared_images(tables, digests.get)


def facts_of(path):
    """The `ImageFacts` of a file."""
    try:
        with open_image(path) as image:
            stored, kinds = image.size, kinds_of(image)
            size = to_rgb(image).size
        with open(path, "rb") as file:
            digest = hashlib.sha1()
            while block := file.read(1 << 20):
                digest.update(block)
    except InputError as error:
        return ImageFacts(str(error))
    return ImageFacts(None, size, stored, kinds, digest.digest())


def kinds_of(image):
    """Kinds of `Problem` of a Pillow image, from its header."""
    is_kind = {
        "transparent images": image.has_transparency_data,
        "images of 16 bits": image.mode.startswith("I"),
        "CMYK images": image.mode == "CMYK",
        "grey images": image.mode in ("1", "L", "LA"),
    }
    return tuple(kind for kind, holds in is_kind.items() if holds)


def problems_in(table, facts):
    """Problems of one dataset; `facts` is a dict from path to `ImageFacts`."""
    found, copies = defaultdict(list), defaultdict(list)
    sizes = dict(zip(table.file_names, map(tuple, table.sizes.tolist()), strict=True))
    sizes = {path: size for path, size in sizes.items() if path in facts}
    for path, size in sizes.items():
        fact = facts[path]
        if fact.error:
            found["images that cannot be read"].append(fact.error)
            continue
        if 0 not in size and fact.size != size:
            line = f"{path}: is {fact.size[0]} x {fact.size[1]}, not {size[0]} x {size[1]}"
            is_rotated = fact.size != fact.stored and size == fact.stored
            line += ", which it is before its EXIF orientation rotates it" if is_rotated else ""
            found["images of another size than their entry says"].append(line)
        copies[fact.digest].append(path)
        for kind in fact.kinds:
            found[kind].append(path)
    found["duplicate images"] = [" = ".join(paths) for paths in copies.values() if len(paths) > 1]
    return [problem for kind, lines in found.items() for problem in problems_of(kind, lines, len(sizes))]
