"""COCO's format: annotation files and their images, and Detectron2's dicts from their content."""

import json
import mmap
import os
import re
from functools import partial

from detectron2.structures import BoxMode

from ..errors import InputError, first_line
from .sources import (
    MAX_ANNOTATIONS,
    SPLITS,
    Content,
    Source,
    check_file,
    list_folder,
    split_folders,
    split_of,
    stem_of,
    subfolder,
    with_extension,
)  # fmt: skip

# Annotation files of the COCO dataset for tasks other than object detection.
OTHER_TASKS = ("captions_", "person_keypoints_", "panoptic_", "stuff_", "image_info_")
# Images, at least, by which a folder is recognized as that of an annotation file.
SAMPLES = 20


def coco_source(annotation_file, image_folder):
    """The `Source` of a json file and the folder that each `file_name` in it is relative to."""
    return Source(annotation_file, lambda: Content(read_json(annotation_file), image_folder, [], annotation_file))


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
    """Detectron2's standard dicts of a well-formed content, in the order of the image ids.

    Classes are numbered from 0 in the order of their ids; see `classes_of`.
    """
    numbers = {category_id: number for number, category_id in enumerate(classes_of(coco))}
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
    """dict from the id of a class to its name, in the order of the ids."""
    return {category["id"]: category["name"] for category in sorted(coco["categories"], key=lambda c: c["id"])}


def find_coco(folder):
    """Annotation files in COCO's format in a folder.

    Returns:
        dict from split to `Source`, empty where there are none. A file whose name contains no split is the split
        "train" where it is the only file, and a split called after the file otherwise.

    Raises:
        InputError: two files are of the same split.
    """
    files = annotation_files(folder)
    found = {}
    for path, split in files:
        split = split or split_of(stem_of(path)) or ("train" if len(files) == 1 else stem_of(path))
        if split in found:
            raise InputError(
                f"{folder}: {found[split].path} and {path} are both of the split {split}; move one of them away, or "
                "name the files with DATASETS.REGISTER"
            )
        found[split] = Source(path, partial(read_found, folder, path, split), folder)
    return found


def annotation_files(folder):
    """Pairs of an annotation file and the split whose folder it is in, or None, from the first place that has any.

    The places are annotations/, the folder itself, and the folders of the splits.
    """
    for places in ({None: subfolder(folder, "annotations")}, {None: folder}, split_folders(folder)):
        found = []
        for split, place in places.items():
            names = with_extension(list_folder(place) if place else [], ".json")
            paths = [os.path.join(place, name) for name in names if not name.startswith(OTHER_TASKS)]
            found += [(path, split) for path in paths if looks_like_coco(path)]
        if found:
            return found
    return []


def looks_like_coco(path):
    """Whether a file is called after a split, or contains the keys of COCO's format; it may still be malformed."""
    if split_of(stem_of(path)):
        return True
    if not os.path.isfile(path) or os.path.getsize(path) == 0:
        return False
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
        return text.find(b'"images"') >= 0 and text.find(b'"categories"') >= 0


def read_found(folder, path, split):
    """`Content` of an annotation file that was found in a folder."""
    coco = read_json(path)
    content = without_parent_category(coco)
    return Content(content, find_images(folder, path, split, coco), [], path if content is coco else None)


def without_parent_category(coco):
    """The content without the category 0 that Roboflow adds as parent of the others, where no annotation uses it."""
    try:
        (parent,) = (category for category in coco["categories"] if category["id"] == 0)
        others = [category for category in coco["categories"] if category["id"] != 0]
        is_parent = others and all(category["supercategory"] == parent["name"] for category in others)
        is_used = any(annotation["category_id"] == 0 for annotation in coco.get("annotations", []))
    except (TypeError, KeyError, ValueError, AttributeError):  # malformed, which is reported later
        return coco
    return {**coco, "categories": others} if is_parent and not is_used else coco


def find_images(folder, path, split, coco):
    """The folder that has the images of an annotation file, or the most of a sample of them."""
    images = coco.get("images") if isinstance(coco, dict) else None
    names = []
    if isinstance(images, list):
        names = [image.get("file_name") for image in images if isinstance(image, dict)]
        names = [name for name in names if isinstance(name, str)]
    names = names[:: max(1, len(names) // SAMPLES)]

    def number_in(place):
        return sum(os.path.isfile(os.path.join(place, name)) for name in names)

    return max(image_folders(folder, path, split), key=number_in)  # the first of several


def image_folders(folder, path, split):
    """Folders that may have the images of an annotation file, the likeliest first."""
    words = [word for word in re.split(r"[^a-zA-Z0-9]+", stem_of(path)) if split_of(word)]
    places = []
    for name in (*words, *SPLITS.get(split, ()), stem_of(path)):
        places += [name, os.path.join(name, "images"), os.path.join("images", name)]
    places = [os.path.join(folder, place) for place in (*places, "images")]
    places += [os.path.dirname(path), folder]
    places += [os.path.join(folder, name) for name in list_folder(folder)]
    return [place for place in dict.fromkeys(places) if os.path.isdir(place)]
