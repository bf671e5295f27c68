"""Finds the splits of a dataset in a folder of one of the known layouts, as DATASETS.FOLDER."""

import logging
import os
from typing import NamedTuple

from detectron2.utils.logger import log_first_n

from ..errors import InputError
from .coco import find_coco
from .sources import SPLITS, list_folder
from .voc import find_voc
from .yolo import find_yolo_folders, find_yolo_yaml

# In order of precedence.
LAYOUTS = {
    "COCO": find_coco,
    "YOLO": find_yolo_yaml,
    "Pascal VOC": find_voc,
    "YOLO without a yaml file": find_yolo_folders,
}
LOOKED_FOR = (
    "COCO (annotations/*.json, *.json or <split>/*.json), YOLO (a yaml file with names and train, or images/ and "
    "labels/) and Pascal VOC (Annotations/*.xml or <split>/*.xml)"
)


class Dataset(NamedTuple):
    """A dataset found in a folder."""

    name: str  # of the folder
    layout: str  # one of `LAYOUTS`
    splits: dict  # from split ("train", "val", "test", or the name of a file) to `Source`


def find_dataset(folder):
    """The `Dataset` in a folder, not read yet; raises InputError if no folder is there, or it has no known layout."""
    if not os.path.isdir(folder):
        raise InputError(f"{folder}: no such folder")
    found = layouts_in(folder)
    if not found:
        inside = [os.path.join(folder, name) for name in list_folder(folder)]
        better = [path for path in inside if os.path.isdir(path) and layouts_in(path)]
        hint = f"; {better[0]} holds one" if better else ""
        raise InputError(
            f"{folder}: holds no dataset of a known layout: looked for {LOOKED_FOR}; see docs/own_data.md{hint}"
        )
    if "YOLO" in found:
        found.pop("YOLO without a yaml file", None)
    layout, *others = found
    if others:
        message = f"{folder}: taken as {layout}; it could also be {', '.join(others)}"
        log_first_n(logging.WARNING, message, name="atss.data", key="message")
    splits = found[layout]
    order = dict.fromkeys([*SPLITS, *sorted(splits)])
    return Dataset(folder_name(folder), layout, {split: splits[split] for split in order if split in splits})


def layouts_in(folder):
    """dict from the layouts that a folder has to its splits."""
    found = {layout: find(folder) for layout, find in LAYOUTS.items()}
    return {layout: splits for layout, splits in found.items() if splits}


def folder_name(folder):
    """Name of a folder, with which the names of its datasets begin."""
    return os.path.basename(os.path.abspath(folder))
