"""What the annotation formats share: finding files and splits, reading text files, and content in COCO format."""

import json
import os
import re
from collections.abc import Callable
from typing import NamedTuple

from ..errors import InputError

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
# The splits of a dataset, and the words that name them.
SPLITS = {
    "train": ("train", "training", "trainval"),
    "val": ("val", "valid", "validation", "minival", "dev"),
    "test": ("test", "testing"),
}
# Maximum bytes of a text file that is written by hand or describes one image, and of the annotation file of a whole
# dataset: COCO's has half a gigabyte, that of Objects365 several.
MAX_TEXT = 1 << 26
MAX_ANNOTATIONS = 1 << 34


class Content(NamedTuple):
    """The content of a dataset's files."""

    coco: dict  # in COCO format, not yet validated; an annotation of a YOLO or VOC file has a `place`: file, and line
    image_folder: str  # that each `file_name` is relative to
    problems: list  # of `Problem`, found while reading
    file: str | None = None  # path of a json file with the same content


class Source(NamedTuple):
    """Where a dataset comes from."""

    path: str  # json file or folder, for messages
    read: Callable  # without arguments, returns a `Content`; raises InputError if a file cannot be read at all
    folder: str | None = None  # DATASETS.FOLDER in which the dataset was found, None for other datasets


def coco_content(classes, images):
    """Content in COCO format, from a dict from class number to name, and (file name, width, height, objects) per image.

    Objects are (class number, [x, y, width, height], place), where the place is as in `Content`, or None.
    """
    coco = {"images": [], "annotations": [], "categories": [{"id": k, "name": name} for k, name in classes.items()]}
    for image_id, (file_name, width, height, objects) in enumerate(images):
        coco["images"].append({"id": image_id, "file_name": file_name, "width": width, "height": height})
        for label, box, place in objects:
            annotation = {"id": len(coco["annotations"]) + 1, "image_id": image_id, "category_id": label, "bbox": box}
            annotation |= {"area": box[2] * box[3], "iscrowd": 0}
            coco["annotations"].append({**annotation, "place": place} if place else annotation)
    return coco


def split_of(name):
    """The split named by a word in a file or folder name, None if there is no such word, or words for several splits.

    "instances_train2017" names train, "valid" names val.
    """
    words = set(re.split(r"[^a-z]+", name.lower()))
    splits = [split for split, names in SPLITS.items() if words & set(names)]
    return splits[0] if len(splits) == 1 else None


def list_folder(path, *extensions):
    """Sorted names in a folder, with one of the extensions if any are given; none if it is None or cannot be listed."""
    try:
        names = sorted(os.listdir(path)) if path else []
    except (OSError, ValueError):
        return []
    return [name for name in names if name.lower().endswith(extensions)] if extensions else names


def stem_of(path):
    """File name without its extension."""
    return os.path.splitext(os.path.basename(path))[0]


def subfolder(path, name):
    """Path of the folder `name` in a folder, in upper or lower case; None if there is none."""
    for found in sorted(list_folder(path), key=lambda found: found != name):
        if found.lower() == name.lower() and os.path.isdir(os.path.join(path, found)):
            return os.path.join(path, found)
    return None


def split_folders(path):
    """dict from split to the path of its folder in a folder; "train" has precedence over "train_old"."""
    found = {}
    for name in sorted(list_folder(path), key=len):
        split = split_of(name)
        if split and split not in found and os.path.isdir(os.path.join(path, name)):
            found[split] = os.path.join(path, name)
    return found


def check_file(path, max_size):
    """Raise an InputError if a file is missing, not a regular file, or larger than `max_size` bytes."""
    if not os.path.exists(path):
        raise InputError(f"{path}: no such file")
    if not os.path.isfile(path):  # reading a pipe could block, and a device may never end
        raise InputError(f"{path}: not a file")
    if os.path.getsize(path) > max_size:
        raise InputError(f"{path}: more than the {max_size} bytes that such a file may have")


def encoding_of(path):
    """Name of the encoding of a text file that begins with ASCII: UTF-16 or UTF-32, or else UTF-8.

    A byte order mark decides, which programs on Windows write, or else the zeros among the first four bytes.
    """
    with open(path, "rb") as file:
        return json.detect_encoding(file.read(4))


def read_lines(path):
    """dict from line number, from 1, to the line without surrounding whitespace; blank lines are skipped.

    Raises InputError if the file is missing or too large.
    """
    check_file(path, MAX_TEXT)
    with open(path, encoding=encoding_of(path), errors="replace") as file:
        lines = {number: line.strip() for number, line in enumerate(file, 1)}
    return {number: line for number, line in lines.items() if line}
