"""COCO-format datasets by name, annotation file and picture folder, checked before they are used."""

import json
import os
from collections import defaultdict

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import load_coco_json

from ..errors import InputError, first_line


def register_coco_format(name, annotation_file, picture_folder):
    """Register a COCO-format dataset with Detectron2; its files are read when the dataset is used.

    A name that is registered already gets the new files.

    Args:
        name: name for DATASETS.TRAIN and DATASETS.TEST.
        annotation_file: path of a json file in COCO's format for object detection.
        picture_folder: path that the pictures' `file_name` starts from.
    """
    if name in DatasetCatalog.list():
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
    DatasetCatalog.register(name, lambda: load_coco_format(name, annotation_file, picture_folder))
    MetadataCatalog.get(name).set(json_file=annotation_file, image_root=picture_folder, evaluator_type="coco")


def load_coco_format(name, annotation_file, picture_folder):
    """Read and check a COCO-format dataset.

    Returns:
        list of dicts in Detectron2's standard form; the names of the classes go into the dataset's metadata.

    Raises:
        InputError: the file is missing or malformed, or pictures that it names are.
    """
    check_coco_format(annotation_file)
    dicts = load_coco_json(annotation_file, picture_folder, name)
    check_pictures_exist(name, dicts)
    return dicts


def check_coco_format(path):
    """See that a file has COCO's format for object detection, as far as this project reads it.

    Raises:
        InputError: naming the file, the entry and what it should be.
    """

    def require(condition, what):
        if not condition:
            raise InputError(f"{path}: {what}")

    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
    except OSError as error:
        raise InputError(f"{path}: cannot read the annotation file ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not a json file ({first_line(error)})") from error

    require(isinstance(content, dict), "not in COCO format: the file must hold an object with images and categories")
    # Files of test pictures have no annotations.
    content = {"annotations": [], **content}
    for key in ("images", "categories", "annotations"):
        entries = content.get(key)
        require(isinstance(entries, list), f"not in COCO format: no list {key!r}")
        for i, entry in enumerate(entries):
            require(isinstance(entry, dict), f"{key}[{i}] is not an object")
            require(_is_integer(entry.get("id")), f"{key}[{i}]: 'id' must be an integer, got {entry.get('id')!r}")
        require(len({entry["id"] for entry in entries}) == len(entries), f"{key}: two entries have the same 'id'")
    require(content["images"], "'images' is empty")
    require(content["categories"], "'categories' is empty")

    for i, category in enumerate(content["categories"]):
        require(isinstance(category.get("name"), str), f"categories[{i}]: 'name' must be a text")
    for i, image in enumerate(content["images"]):
        require(isinstance(image.get("file_name"), str), f"images[{i}]: 'file_name' must be a text")
        for side in ("width", "height"):
            good = _is_integer(image.get(side)) and image[side] > 0
            require(good, f"images[{i}]: {side!r} must be a positive integer, got {image.get(side)!r}")
    image_ids = {image["id"] for image in content["images"]}
    category_ids = {category["id"] for category in content["categories"]}
    for i, annotation in enumerate(content["annotations"]):
        place = f"annotations[{i}] (id {annotation['id']})"
        image_id, category_id, box = (annotation.get(key) for key in ("image_id", "category_id", "bbox"))
        require(_is_integer(image_id) and image_id in image_ids, f"{place}: no image has the id {image_id!r}")
        known = _is_integer(category_id) and category_id in category_ids
        require(known, f"{place}: no category has the id {category_id!r}; there are {_some(sorted(category_ids))}")
        good = isinstance(box, list) and len(box) == 4 and all(_is_number(x) for x in box)
        require(good, f"{place}: 'bbox' must be [x, y, width, height] in pixels, got {box!r}")


def check_pictures_exist(name, dicts):
    """See that the dataset's pictures are where they should be, with one look into each folder.

    Raises:
        InputError: naming the first that is missing, and how many are.
    """
    by_folder = defaultdict(list)
    for record in dicts:
        folder, file_name = os.path.split(record["file_name"])
        by_folder[folder].append(file_name)
    missing = []
    for folder, file_names in by_folder.items():
        there = set(os.listdir(folder or ".")) if os.path.isdir(folder or ".") else set()
        missing += [os.path.join(folder, file_name) for file_name in file_names if file_name not in there]
    if missing:
        raise InputError(
            f"{missing[0]}: picture of dataset {name} is missing ({len(missing)} of {len(dicts)} are); "
            "does the picture folder fit the annotation file?"
        )


def _is_integer(value):
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e9


def _some(values):
    return ", ".join(map(str, values[:10])) + (", ..." if len(values) > 10 else "")
