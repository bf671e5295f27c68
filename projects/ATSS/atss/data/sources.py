"""What the formats share: looking for files and splits, reading text files, collecting entries in COCO's format."""

import os
import re
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from ..errors import InputError

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
# The splits of a dataset, and the words that name them.
SPLITS = {
    "train": ("train", "training", "trainval"),
    "val": ("val", "valid", "validation", "minival", "dev"),
    "test": ("test", "testing"),
}
# Maximum bytes of a text file that a person writes or that belongs to one image, and of the annotation file of a whole
# dataset: COCO's has half a gigabyte, that of Objects365 several.
MAX_TEXT = 1 << 26
MAX_ANNOTATIONS = 1 << 34


class Content(NamedTuple):
    """A dataset that has been read.

    coco: content of a json file in COCO's format; entries may be malformed. An annotation that comes from another file
        has a `place`: that file, and the line.
    image_folder: path that each `file_name` is relative to.
    problems: list of `Problem` found while reading.
    file: path of a json file with the same content, None where there is none.
    """

    coco: dict
    image_folder: str
    problems: list
    file: str | None = None


class Source(NamedTuple):
    """Where a dataset comes from.

    path: its name in messages: a json file or a folder.
    read: function without arguments that returns a `Content`; raises InputError where a file cannot be read at all.
    folder: the DATASETS.FOLDER it was found in, None for other datasets.
    """

    path: str
    read: Callable
    folder: str | None = None


def sources_of(folder, splits, read):
    """dict from split to `Source`; `read` is a function of a split that returns its `Content`."""
    return {split: Source(folder, partial(read, split), folder) for split in splits}


class CocoBuilder:
    """Collects images and annotations in COCO's format.

    Args:
        classes: dict from the number of a class to its name.
    """

    def __init__(self, classes):
        self.images, self.annotations = [], []
        categories = [{"id": number, "name": name} for number, name in classes.items()]
        self.coco = {"images": self.images, "annotations": self.annotations, "categories": categories}

    def add_image(self, file_name, width, height):
        self.images.append({"id": len(self.images), "file_name": file_name, "width": width, "height": height})

    def add_annotation(self, label, box, place):
        """Add an annotation to the last image; `place` is as in `Content`."""
        entry = {"id": len(self.annotations) + 1, "image_id": len(self.images) - 1, "category_id": label, "bbox": box}
        self.annotations.append({**entry, "place": place})


def split_of(name):
    """The split that a word in the name of a file or folder names, None where none or several are named.

    "instances_train2017" names train, "valid" names val.
    """
    words = set(re.split(r"[^a-z]+", name.lower()))
    splits = [split for split, names in SPLITS.items() if words & set(names)]
    return splits[0] if len(splits) == 1 else None


def list_folder(path):
    """Sorted names in a folder; none where it cannot be listed."""
    try:
        return sorted(os.listdir(path))
    except (OSError, ValueError):
        return []


def with_extension(names, *extensions):
    return [name for name in names if name.lower().endswith(extensions)]


def stem_of(path):
    """Name of a file without its extension."""
    return os.path.splitext(os.path.basename(path))[0]


def subfolder(path, name):
    """Path of the folder `name` in a folder, in upper or lower case; None where there is none."""
    for found in sorted(list_folder(path), key=lambda found: found != name):
        if found.lower() == name.lower() and os.path.isdir(os.path.join(path, found)):
            return os.path.join(path, found)
    return None


def split_folders(path):
    """dict from split to the path of its folder in a folder; "train" goes before "train_old"."""
    found = {}
    for name in sorted(list_folder(path), key=len):
        split = split_of(name)
        if split and split not in found and os.path.isdir(os.path.join(path, name)):
            found[split] = os.path.join(path, name)
    return found


def check_file(path, max_size):
    """Check that a file can be read into memory.

    Raises:
        InputError: it is missing, not a regular file, or larger than `max_size` bytes.
    """
    if not os.path.exists(path):
        raise InputError(f"{path}: no such file")
    if not os.path.isfile(path):  # reading a pipe would wait, a device never end
        raise InputError(f"{path}: not a file")
    if os.path.getsize(path) > max_size:
        raise InputError(f"{path}: more than the {max_size} bytes that such a file may have")


def read_lines(path):
    """dict from line number, from 1, to the text of the line; without lines that are blank.

    Raises:
        InputError: the file is missing or too large.
    """
    check_file(path, MAX_TEXT)
    with open(path, encoding="utf-8", errors="replace") as file:
        lines = ((number, line.strip()) for number, line in enumerate(file, 1))
        return {number: line for number, line in lines if line}
