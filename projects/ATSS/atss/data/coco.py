"""COCO's format: files, and what training makes of their content."""

import json
import mmap
import os
import re

import numpy as np
from detectron2.structures import BoxMode

from ..errors import InputError, first_line
from .sources import (
    MAX_ANNOTATIONS,
    PARTS,
    Content,
    Source,
    check_file,
    list_folder,
    part_folders,
    part_of,
    subfolder,
    with_extension,
)  # fmt: skip

# Annotation files of the COCO dataset that are not for boxes of objects.
OTHER_TASKS = ("captions_", "person_keypoints_", "panoptic_", "stuff_", "image_info_")
# Images that are looked for in a folder to see whether it is the right one.
LOOKED_FOR = 20


def coco_source(annotation_file, image_folder):
    """The `Source` of a json file and the folder that its images' `file_name` starts from."""

    def read():
        return Content(read_json(annotation_file), image_folder, [], annotation_file)

    return Source(annotation_file, read)


def read_json(path):
    """Content of a json file.

    Raises:
        InputError: it is missing, too large or not json.
    """
    check_file(path, MAX_ANNOTATIONS)
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not a json file ({first_line(error)})") from error
    except MemoryError as error:
        raise InputError(f"{path}: larger than this machine's memory") from error


def dicts_of(coco, image_folder):
    """Content that is well formed -> list of dicts in Detectron2's standard form, in order of the images' ids.

    Classes are numbered from 0, in order of their ids; see `classes_of`.
    """
    numbers = {category_id: n for n, category_id in enumerate(classes_of(coco))}
    records = {}
    for image in coco["images"]:
        records[image["id"]] = {
            "file_name": os.path.join(image_folder, image["file_name"]),
            "height": image["height"],
            "width": image["width"],
            "image_id": image["id"],
            "annotations": [],
        }
    for annotation in coco["annotations"]:
        records[annotation["image_id"]]["annotations"].append(
            {
                "bbox": annotation["bbox"],
                "bbox_mode": BoxMode.XYWH_ABS,
                "category_id": numbers[annotation["category_id"]],
                "iscrowd": int(annotation.get("iscrowd", 0)),
            }
        )
    return [records[image_id] for image_id in sorted(records)]


def classes_of(coco):
    """dict from a class's id to its name, in order of the ids."""
    return {category["id"]: category["name"] for category in sorted(coco["categories"], key=lambda c: c["id"])}


def find_coco(folder):
    """Annotation files in COCO's format in a folder, and the images to each.

    Returns:
        dict from part to `Source`, empty where there is none. A single file whose name speaks of no part is train,
        others are parts of their own.

    Raises:
        InputError: two files claim to be the same part.
    """
    files = annotation_files(folder)
    parts = {}
    for path, of_folder in files:
        stem = os.path.splitext(os.path.basename(path))[0]
        part = of_folder or part_of(stem) or ("train" if len(files) == 1 else stem)
        if part in parts:
            raise InputError(
                f"{folder}: {parts[part].path} and {path} are both of the part {part}; move one of them away, or name "
                "the files with DATASETS.REGISTER"
            )
        parts[part] = Source(path, lambda path=path, part=part: read_found(folder, path, part), folder)
    return parts


def annotation_files(folder):
    """Files in the first of the usual places that has any: path, and the part whose folder they are in or None."""
    annotations = subfolder(folder, "annotations")
    for places in ({None: annotations}, {None: folder}, part_folders(folder)):
        found = []
        for part, place in places.items():
            names = with_extension(list_folder(place) if place else [], ".json")
            paths = [os.path.join(place, name) for name in names if not name.startswith(OTHER_TASKS)]
            found += [(path, part) for path in paths if looks_like_coco(path)]
        if found:
            return found
    return []


def looks_like_coco(path):
    """Whether a file speaks of images and categories, or its name of a part, whatever is wrong inside."""
    if part_of(os.path.splitext(os.path.basename(path))[0]):
        return True
    if not os.path.isfile(path) or os.path.getsize(path) == 0:
        return False
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
        return text.find(b'"images"') >= 0 and text.find(b'"categories"') >= 0


def read_found(folder, path, part):
    coco = read_json(path)
    without = without_parent_category(coco)
    return Content(without, find_images(folder, path, part, coco), [], path if without is coco else None)


def without_parent_category(coco):
    """The content without the category 0 that Roboflow adds as the parent of all others, where no object has it."""
    try:
        (parent,) = (category for category in coco["categories"] if category["id"] == 0)
        others = [category for category in coco["categories"] if category["id"] != 0]
        is_parent = others and all(category["supercategory"] == parent["name"] for category in others)
        if not is_parent or any(annotation["category_id"] == 0 for annotation in coco.get("annotations", [])):
            return coco
    except (TypeError, KeyError, ValueError, AttributeError):  # malformed, which the inspection names
        return coco
    return {**coco, "categories": others}


def find_images(folder, path, part, coco):
    """The folder that has the images of an annotation file, or most of those that were looked for."""
    images = coco.get("images") if isinstance(coco, dict) else None
    images = [image for image in images or [] if isinstance(image, dict)] if isinstance(images, list) else []
    names = [image["file_name"] for image in images if isinstance(image.get("file_name"), str)]
    names = [names[i] for i in np.linspace(0, len(names) - 1, min(LOOKED_FOR, len(names))).astype(int)]
    places = image_folders(folder, path, part)
    # The first of those with as many.
    return max(places, key=lambda place: sum(os.path.isfile(os.path.join(place, name)) for name in names))


def image_folders(folder, path, part):
    """Where the images of an annotation file may be, likeliest first."""
    stem = os.path.splitext(os.path.basename(path))[0]
    called = [word for word in re.split(r"[^a-zA-Z0-9]+", stem) if part_of(word)]
    places = []
    for name in (*called, *PARTS.get(part, ()), stem):
        places += [(name,), (name, "images"), ("images", name)]
    places = [os.path.join(folder, *place) for place in places]
    places += [os.path.join(folder, "images"), os.path.dirname(path), folder]
    places += [os.path.join(folder, name) for name in list_folder(folder)]
    return [place for place in dict.fromkeys(places) if os.path.isdir(place)]
