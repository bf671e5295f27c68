"""COCO format: finds annotation files and their images, and converts their content to Detectron2's dicts."""

import json
import mmap
import os
import re
from functools import partial

from detectron2.structures import BoxMode

from ..errors import InputError, first_line
from . import sources
from .ids import unified
from .image_paths import locate_images, parts_of, stays_inside, with_slashes

# Prefixes of COCO's annotation files for tasks other than object detection.
OTHER_TASKS = ("captions_", "person_keypoints_", "panoptic_", "stuff_", "image_info_")
# Minimum number of images that are looked up to find the image folder of an annotation file.
SAMPLES = 20


def coco_source(annotation_file, image_folder):
    """The `Source` of a json file and the folder that each `file_name` in it is relative to."""

    def read():
        return content_of(read_json(annotation_file), image_folder, annotation_file)

    return sources.Source(annotation_file, read)


def content_of(coco, image_folder, annotation_file):
    """`Content` of what a json file holds, of any type, in which `file_name` becomes what `locate_images` finds.

    `annotation_file` is the path of a file with the same content, None if there is none.
    """
    found, problems = locate_images([image["file_name"] for image in named_images(coco)], image_folder)
    for image in named_images(coco) if found else ():
        image["file_name"] = found.get(image["file_name"], image["file_name"])
    # Evaluators read UTF-8.
    is_same = annotation_file and not found and sources.encoding_of(annotation_file) == "utf-8"
    return sources.Content(coco, image_folder, problems, annotation_file if is_same else None)


def named_images(coco):
    """The images of a content of any type whose file names are texts."""
    images = coco.get("images") if isinstance(coco, dict) else None
    images = [image for image in images if isinstance(image, dict)] if isinstance(images, list) else []
    return [image for image in images if isinstance(image.get("file_name"), str)]


def read_json(path):
    """Content of a json file; raises InputError if it is missing, too large or not json."""
    sources.check_file(path, sources.MAX_ANNOTATIONS)
    try:
        with open(path, encoding=sources.encoding_of(path)) as file:
            return json.load(file)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not a json file ({first_line(error)})") from error
    except MemoryError as error:
        raise InputError(f"{path}: larger than this machine's memory") from error


def classes_of(coco):
    """dict from category id to class name, in the order of the ids."""
    return {category["id"]: category["name"] for category in sorted(coco["categories"], key=lambda c: c["id"])}


def dicts_of(coco, image_folder):
    """Detectron2's standard dicts of a valid content, ordered by image id; classes are numbered as in `classes_of`."""
    numbers = {category_id: number for number, category_id in enumerate(classes_of(coco))}
    records = {}
    for image in sorted(coco["images"], key=lambda image: image["id"]):
        record = {"file_name": os.path.join(image_folder, image["file_name"]), "image_id": image["id"]}
        records[image["id"]] = {**record, "height": image["height"], "width": image["width"], "annotations": []}
    for annotation in coco["annotations"]:
        label, crowd = numbers[annotation["category_id"]], int(annotation.get("iscrowd", 0))
        entry = {"bbox": annotation["bbox"], "bbox_mode": BoxMode.XYWH_ABS, "category_id": label, "iscrowd": crowd}
        records[annotation["image_id"]]["annotations"].append(entry)
    return list(records.values())


def find_coco(folder):
    """Find annotation files in COCO format: in annotations/, in the folder itself, or in the folders of the splits.

    Returns a dict from split to `Source`, empty if there are no such files. A file that names no split is "train" if it
    is the only one, else a split with the name of the file. Raises InputError if two files belong to the same split.
    """
    for places in ({None: sources.subfolder(folder, "annotations")}, {None: folder}, sources.split_folders(folder)):
        files = []
        for split, place in places.items():
            names = [name for name in sources.list_folder(place, ".json") if not name.startswith(OTHER_TASKS)]
            files += [(os.path.join(place, name), split or sources.split_of(sources.stem_of(name))) for name in names]
        files = [(path, split) for path, split in files if is_coco(path)]
        if files:
            break
    found = {}
    for path, split in files:
        split = split or ("train" if len(files) == 1 else sources.stem_of(path))
        if split in found:
            raise InputError(
                f"{folder}: {found[split].path} and {path} are both of the split {split}; move one of them away, or "
                "name the files with DATASETS.REGISTER"
            )
        found[split] = sources.Source(path, partial(read_found, folder, path, split), folder)
    return found


def is_coco(path):
    """Whether a json file is named after a split, or contains the keys of COCO format; it may still be malformed."""
    if sources.split_of(sources.stem_of(path)):
        return True
    if not os.path.isfile(path) or os.path.getsize(path) == 0:
        return False
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
        words = ('"images"', '"categories"')
        encodings = ("utf-8", "utf-16-le", "utf-16-be")
        return any(all(text.find(word.encode(encoding)) >= 0 for word in words) for encoding in encodings)


def read_found(folder, path, split):
    """`Content` of an annotation file that was found in a folder."""
    coco = read_json(path)
    content = without_parent_category(coco)
    return content_of(content, find_images(folder, path, split, coco), path if content is coco else None)


def without_parent_category(coco):
    """The content without the category 0 that Roboflow adds as parent of the others, unless an annotation uses it."""
    try:
        (parent,) = (category for category in coco["categories"] if unified(category["id"]) == 0)
        others = [category for category in coco["categories"] if unified(category["id"]) != 0]
        is_parent = others and all(category["supercategory"] == parent["name"] for category in others)
        is_used = any(unified(annotation["category_id"]) == 0 for annotation in coco.get("annotations", []))
    except (TypeError, KeyError, ValueError, AttributeError):  # malformed, which is reported later
        return coco
    return {**coco, "categories": others} if is_parent and not is_used else coco


def find_images(folder, path, split, coco):
    """The folder that contains the most images of a sample of an annotation file's; the likeliest one of several.

    Where no folder has them by their paths, their names count.
    """
    names = [image["file_name"] for image in named_images(coco)]
    sample = names[:: max(1, len(names) // SAMPLES)]
    inside = [with_slashes(name) for name in sample if stays_inside(name)]
    bare = [parts[-1] for parts in map(parts_of, sample) if parts]
    words = [word for word in re.split(r"[^a-zA-Z0-9]+", sources.stem_of(path)) if sources.split_of(word)]
    places = []
    for name in (*words, *sources.SPLITS.get(split, ()), sources.stem_of(path)):
        places += [name, os.path.join(name, "images"), os.path.join("images", name)]
    places = [os.path.join(folder, place) for place in (*places, "images")]
    places += [os.path.dirname(path), folder, *(os.path.join(folder, name) for name in sources.list_folder(folder))]

    def num_present(place):
        return tuple(sum(os.path.isfile(os.path.join(place, name)) for name in names) for names in (inside, bare))

    return max(filter(os.path.isdir, dict.fromkeys(places)), key=num_present)
