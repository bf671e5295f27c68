"""What datasets are read from: files and folders, the names of their parts, and the sizes of images."""

import os
import re
from collections.abc import Callable
from typing import NamedTuple

from PIL import ExifTags, Image

from ..errors import InputError, first_line
from .image_io import open_image

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
# The parts of a dataset, and what else they are called.
PARTS = {
    "train": ("train", "training", "trainval"),
    "val": ("val", "valid", "validation", "minival", "dev"),
    "test": ("test", "testing"),
}


# Bytes of files that a person writes or a program writes for one image, and of files of annotations of a whole
# dataset: COCO's have half a gigabyte, Objects365's some.
MAX_TEXT = 1 << 26
MAX_ANNOTATIONS = 1 << 34


class Content(NamedTuple):
    """A dataset that has been read.

    coco: what a json file in COCO's format would hold; its entries may be malformed. An annotation's `place` says
        where it stands, where that is no json file.
    image_folder: path that `file_name`s start from.
    problems: list of `Problem` that were found on the way.
    file: json file that holds the same, None where there is none.
    """

    coco: dict
    image_folder: str
    problems: list
    file: str | None = None


class Source(NamedTuple):
    """Where a dataset comes from.

    path: what messages call it: a json file or a folder.
    read: function without arguments -> `Content`; raises InputError where files cannot be read at all.
    folder: folder that it was found in, None where it was named otherwise.
    """

    path: str
    read: Callable
    folder: str | None = None


def part_of(name):
    """The part that the name of a file or folder speaks of, in its words, None where it is none or several.

    "instances_train2017" is of train, "valid" of val.
    """
    words = set(re.split(r"[^a-z]+", name.lower()))
    parts = [part for part, names in PARTS.items() if words & set(names)]
    return parts[0] if len(parts) == 1 else None


def list_folder(path):
    """Names in a folder, in order; none where there is no such folder."""
    return sorted(os.listdir(path)) if os.path.isdir(path) else []


def check_file(path, max_size):
    """See that a file can be read into memory.

    Raises:
        InputError: it is missing, no file, or larger than `max_size` bytes.
    """
    if not os.path.exists(path):
        raise InputError(f"{path}: no such file")
    if not os.path.isfile(path):  # reading a pipe would wait, a device never end
        raise InputError(f"{path}: not a file")
    if os.path.getsize(path) > max_size:
        raise InputError(f"{path}: more than the {max_size} bytes that such a file may have")


def with_extension(names, *extensions):
    return [name for name in names if name.lower().endswith(extensions)]


def subfolder(path, name):
    """Path of the folder of that name in a folder, or of that name in other case; None where there is none."""
    names = [found for found in list_folder(path) if found.lower() == name.lower()]
    found = [
        os.path.join(path, n) for n in sorted(names, key=lambda n: n != name) if os.path.isdir(os.path.join(path, n))
    ]
    return found[0] if found else None


def part_folders(path):
    """dict from part to the path of its folder in a folder; "train" is likelier than "train_old"."""
    found = {}
    for name in sorted(list_folder(path), key=len):
        part = part_of(name)
        if part and part not in found and os.path.isdir(os.path.join(path, name)):
            found[part] = os.path.join(path, name)
    return found


def upright_size(path):
    """Width and height of an image file as `read_image` gives it, from its header alone.

    Raises:
        FileNotFoundError: it is missing.
        ValueError: it is no image.
    """
    try:
        with open_image(path) as image:
            width, height = image.size
            # Pillow gives TIFFs their upright size; for PNGs its own getexif would decode the whole image.
            turned = image.format != "TIFF" and orientation(image) in (5, 6, 7, 8)
            return (height, width) if turned else (width, height)
    except FileNotFoundError:
        raise
    except Exception as error:  # whatever a damaged image makes its decoder raise
        raise ValueError(first_line(error)) from error


def orientation(image):
    """EXIF orientation of a Pillow image, 1 where it has none, from the header alone."""
    return Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1)
