"""Validates the entries of a dataset in COCO format, as far as object detection needs them."""

import re
import reprlib
from collections import defaultdict

from .problems import problems_of

# Coordinates of this size and more are not pixels.
LARGEST = 1e9
# Maximum pixels of an image's side.
LARGEST_SIDE = 1_000_000
DRIVE = re.compile("[a-zA-Z]:/")
# Line separators, control characters of terminals, halves of surrogate pairs.
UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
# Shortens values in messages, which can be anything that a json file can hold.
SHORT = reprlib.Repr()
SHORT.maxstring = SHORT.maxother = SHORT.maxlong = 100


def is_id(value):
    return type(value) is int and abs(value) < 1 << 63


def is_printable(value):
    return type(value) is str and not UNPRINTABLE.search(value)


def is_side(value):
    return type(value) is int and 0 < value <= LARGEST_SIDE


def is_box(value):
    return type(value) is list and len(value) == 4 and all(type(x) in (int, float) and abs(x) < LARGEST for x in value)


# The values of each kind of entry: name, its value if it is missing, whether a value is valid, and what it must be.
VALUES = {
    "images": [
        ("file_name", None, is_printable, "be a text that can be printed"),
        *((side, None, is_side, f"be a positive integer, {LARGEST_SIDE} at most") for side in ("width", "height")),
    ],
    "categories": [("name", None, is_printable, "be a text that can be printed")],
    "annotations": [
        ("bbox", None, is_box, "be [x, y, width, height] in pixels"),
        ("area", 0, lambda value: type(value) in (int, float) and abs(value) < LARGEST**2, "be a number"),
        ("iscrowd", 0, lambda value: value in (0, 1), "be 0 or 1"),
    ],
}


def sound_content(coco):
    """Validate the content, of any type, of a json file.

    Returns a content in COCO format with the valid entries, and a list of `Problem`, all of them errors.
    """
    if not isinstance(coco, dict):
        what = "not in COCO format: the file must hold an object with images and categories"
        return {"images": [], "categories": [], "annotations": []}, problems_of("no dataset", [what], 1)
    images, image_problems = sound_entries("images", coco.get("images"))
    categories, category_problems = sound_entries("categories", coco.get("categories"))
    problems = image_problems + category_problems
    # Files of test images have no annotations.
    find_error = reference_check(ids_of(coco.get("images")), ids_of(coco.get("categories")))
    annotations, found = sound_entries("annotations", coco.get("annotations", []), find_error)
    if problems:
        # Problems of an image or class are not repeated for its annotations.
        known, labels = ids_of(images), ids_of(categories)
        annotations = [a for a in annotations if a["image_id"] in known and a["category_id"] in labels]
    return {"images": images, "categories": categories, "annotations": annotations}, problems + found


def ids_of(entries):
    """Set of the valid ids in a list of entries of any type."""
    entries = entries if isinstance(entries, list) else []
    return {entry["id"] for entry in entries if type(entry) is dict and is_id(entry.get("id"))}


def reference_check(images, categories):
    """Function of an annotation that returns its error if its ids are not in the sets `images`, `categories`."""
    some = ", ".join(map(str, sorted(categories)[:10])) + (", ..." if len(categories) > 10 else "")

    def find_error(annotation):
        image, category = annotation.get("image_id"), annotation.get("category_id")
        if not is_id(image) or image not in images:
            return "annotations of no image", f"no image has the id {SHORT.repr(image)}"
        if not is_id(category) or category not in categories:
            what = f"no category has the id {SHORT.repr(category)}; there are {some}"
            return "annotations of unknown classes", what
        return None

    return find_error


def sound_entries(key, entries, find_error=lambda entry: None):
    """The valid entries of the list `key`, a value of any type, and a list of `Problem`.

    `find_error` is a function of an entry with an id that returns its kind of error and a message, or None.
    """
    if not isinstance(entries, list):
        return [], problems_of("no dataset", [f"not in COCO format: no list {key!r}"], 1)
    if not entries and key != "annotations":
        return [], problems_of("no dataset", [f"{key!r} is empty"], 1)
    sound, messages, seen = [], defaultdict(list), set()
    for i, entry in enumerate(entries):
        error = id_error(key, entry, seen) or find_error(entry) or value_error(key, entry)
        if error:
            kind, what = error
            messages[kind].append(f"{place_of(key, i, entry)}: {what}")
        else:
            sound.append(entry)
    return sound, [problem for kind, found in messages.items() for problem in problems_of(kind, found, len(entries))]


def place_of(key, i, entry):
    """Where the owner of a dataset finds an entry."""
    if isinstance(entry, dict) and "place" in entry:
        return entry["place"]
    has_id = key == "annotations" and isinstance(entry, dict) and is_id(entry.get("id"))
    return f"{key}[{i}]" + (f" (id {entry['id']})" if has_id else "")


def id_error(key, entry, seen):
    """Error of an entry of any type without an id of its own, or None; adds its id to the set `seen`."""
    if type(entry) is not dict:
        return f"malformed {key}", "is not an object"
    entry_id = entry.get("id")
    if not is_id(entry_id):
        return f"malformed {key}", f"'id' must be an integer, got {SHORT.repr(entry_id)}"
    if entry_id in seen:
        return f"{key} with an id that another has", f"{key}: two entries have the same 'id' {entry_id}"
    seen.add(entry_id)
    return None


def value_error(key, entry):
    """Error of the first invalid value of an entry, or None."""
    for name, default, is_valid, must in VALUES[key]:
        value = entry.get(name, default)
        if not is_valid(value):
            return f"malformed {key}", f"{name!r} must {must}, got {SHORT.repr(value)}"
        if name == "file_name" and not stays_inside(value):
            must = "start from the image folder and stay in it"
            return "images outside of their folder", f"{name!r} must {must}, got {SHORT.repr(value)}"
    return None


def stays_inside(name):
    """Whether a path of any operating system stays in the folder that it is relative to."""
    name = name.replace("\\", "/")
    return not (name.startswith("/") or DRIVE.match(name) or ".." in name.split("/"))
