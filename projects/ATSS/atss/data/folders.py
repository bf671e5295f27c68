"""A folder of one's own -> the parts of the dataset in it, in whichever of the known layouts."""

import logging
import os
from typing import NamedTuple

from detectron2.utils.logger import log_first_n

from ..errors import InputError
from .coco import find_coco
from .sources import PARTS, list_folder
from .voc import find_voc
from .yolo import find_yolo_folders, find_yolo_yaml

# In the order in which they are taken where a folder has several.
LAYOUTS = {
    "COCO": find_coco,
    "YOLO": find_yolo_yaml,
    "Pascal VOC": find_voc,
    "YOLO without a yaml file": find_yolo_folders,
}
LOOKED_FOR = (
    "COCO (annotations/*.json, *.json or <part>/*.json), YOLO (a yaml file with names and train, or images/ and "
    "labels/) and Pascal VOC (Annotations/*.xml or <part>/*.xml)"
)


class Dataset(NamedTuple):
    """A dataset that was found in a folder.

    name: of the folder, without the folders that it is in.
    layout: title of it.
    parts: dict from part ("train", "val", "test", or the name of a file) to `Source`.
    """

    name: str
    layout: str
    parts: dict


def find_dataset(folder):
    """Look what dataset a folder holds; nothing is read yet.

    Returns:
        `Dataset`.

    Raises:
        InputError: there is no such folder, or none of the known layouts in it.
    """
    if not os.path.isdir(folder):
        raise InputError(f"{folder}: no such folder")
    found = {layout: parts for layout, find in LAYOUTS.items() if (parts := find(folder))}
    if not found:
        inside = [name for name in list_folder(folder) if os.path.isdir(os.path.join(folder, name))]
        better = [name for name in inside if any(find(os.path.join(folder, name)) for find in LAYOUTS.values())]
        hint = f"; {os.path.join(folder, better[0])} holds one" if better else ""
        raise InputError(
            f"{folder}: holds no dataset of a known layout: looked for {LOOKED_FOR}; see docs/own_data.md{hint}"
        )
    layout = next(iter(found))
    others = [name for name in found if name != layout and not any(name.startswith(f"{other} ") for other in found)]
    if others:
        log_first_n(
            logging.WARNING, f"{folder}: taken as {layout}; it could be {', '.join(others)}, too",
            name="atss.data", key="message",
        )  # fmt: skip
    in_order = sorted(found[layout], key=lambda part: [*PARTS, part].index(part))
    return Dataset(folder_name(folder), layout, {part: found[layout][part] for part in in_order})


def folder_name(folder):
    """What the datasets of a folder are called after."""
    return os.path.basename(os.path.abspath(folder))
