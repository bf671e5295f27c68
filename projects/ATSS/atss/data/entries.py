"""Checks that the entries of a dataset have COCO's format for object detection, as far as this project reads it."""

import re
import reprlib
from collections import defaultdict

from .problems import problems_of

# Coordinates of this size and more are not pixels.
LARGEST = 1e9
MAX_AREA = LARGEST**2
# Maximum pixels of an image's side.
LARGEST_SIDE = 1_000_000
NUMBERS = {int, float}
DRIVE = re.compile("[a-zA-Z]:/")
# Ends of lines, control characters of terminals, halves of characters.
UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
# Shortens values in messages, which may be anything that a file can have.
SHORT = reprlib.Repr()
SHORT.maxstring = SHORT.maxother = SHORT.maxlong = 100


def sound_content(coco):
    """Check the content of a json file.

    Args:
        coco: whatever the file has.

    Returns:
        a content in COCO's format with the entries that are sound, and a list of `Problem`, all of them errors.
    """
    if not isinstance(coco, dict):
        what = "not in COCO format: the file must hold an object with images and categories"
        return {"images": [], "categories": [], "annotations": []}, problems_of("no dataset", [what], 1)
    images, problems = sound_entries("images", coco.get("images"), image_error)
    categories, found = sound_entries("categories", coco.get("categories"), category_error)
    problems += found
    check = annotation_check(ids_of(coco.get("images")), ids_of(coco.get("categories")))
    # Files of test images have no annotations.
    annotations, found = sound_entries("annotations", coco.get("annotations", []), check)
    if problems:
        # Problems of an image or class are not repeated for its annotations.
        image_ids, category_ids = ids_of(images), ids_of(categories)
        annotations = [a for a in annotations if a["image_id"] in image_ids and a["category_id"] in category_ids]
    return {"images": images, "categories": categories, "annotations": annotations}, problems + found


def ids_of(entries):
    """Set of the ids of the entries that have one."""
    entries = entries if isinstance(entries, list) else []
    return {entry["id"] for entry in entries if type(entry) is dict and is_id(entry.get("id"))}


def sound_entries(key, entries, error_of):
    """The sound entries of a list, and a list of `Problem`.

    Args:
        key: name of the list.
        entries: the list.
        error_of: function of an entry with an id that returns None, or the kind of its first problem and a text.
    """
    if not isinstance(entries, list):
        return [], problems_of("no dataset", [f"not in COCO format: no list {key!r}"], 1)
    if not entries and key != "annotations":
        return [], problems_of("no dataset", [f"{key!r} is empty"], 1)
    sound, broken, seen = [], defaultdict(list), set()
    for i, entry in enumerate(entries):
        error = entry_error(key, entry, seen) or error_of(entry)
        if error is None:
            sound.append(entry)
        else:
            kind, what = error
            broken[kind].append(f"{place_of(key, i, entry)}: {what}")
    problems = []
    for kind, lines in broken.items():
        problems += problems_of(kind, lines, len(entries))
    return sound, problems


def place_of(key, i, entry):
    """Where an entry is, for its owner to find it."""
    if isinstance(entry, dict) and "place" in entry:
        return entry["place"]
    has_id = key == "annotations" and isinstance(entry, dict) and is_id(entry.get("id"))
    return f"{key}[{i}]" + (f" (id {entry['id']})" if has_id else "")


def entry_error(key, entry, seen):
    """Error of any entry; adds its id to the set `seen`."""
    if type(entry) is not dict:
        return f"malformed {key}", "is not an object"
    entry_id = entry.get("id")
    if not is_id(entry_id):
        return malformed(key, entry, "id", "be an integer")
    if entry_id in seen:
        return f"{key} with an id that another has", f"{key}: two entries have the same 'id' {entry_id}"
    seen.add(entry_id)
    return None


def malformed(key, entry, name, must):
    """The error that the value `name` of an entry is not what it must be."""
    return f"malformed {key}", f"{name!r} must {must}, got {SHORT.repr(entry.get(name))}"


def category_error(category):
    if not is_text(category.get("name")):
        return malformed("categories", category, "name", "be a text that can be printed")
    return None


def image_error(image):
    if not is_text(image.get("file_name")):
        return malformed("images", image, "file_name", "be a text that can be printed")
    if not stays_inside(image["file_name"]):
        _, what = malformed("images", image, "file_name", "start from the image folder and stay in it")
        return "images outside of their folder", what
    for side in ("width", "height"):
        value = image.get(side)
        if type(value) is not int or not 0 < value <= LARGEST_SIDE:
            return malformed("images", image, side, f"be a positive integer, {LARGEST_SIDE} at most")
    return None


def annotation_check(images, categories):
    """Function of an annotation that returns its error, or None.

    Args:
        images, categories: sets of ids.
    """
    some = ", ".join(map(str, sorted(categories)[:10])) + (", ..." if len(categories) > 10 else "")

    def error_of(annotation):
        image, category = annotation.get("image_id"), annotation.get("category_id")
        if not is_id(image) or image not in images:
            return "annotations of no image", f"no image has the id {SHORT.repr(image)}"
        if not is_id(category) or category not in categories:
            what = f"no category has the id {SHORT.repr(category)}; there are {some}"
            return "annotations of unknown classes", what
        if not is_box(annotation.get("bbox")):
            return malformed("annotations", annotation, "bbox", "be [x, y, width, height] in pixels")
        area = annotation.get("area", 0)
        if type(area) not in NUMBERS or not abs(area) < MAX_AREA:
            return malformed("annotations", annotation, "area", "be a number")
        if annotation.get("iscrowd", 0) not in (0, 1):
            return malformed("annotations", annotation, "iscrowd", "be 0 or 1")
        return None

    return error_of


def is_id(value):
    return type(value) is int and abs(value) < 1 << 63


def is_text(value):
    """Whether a value is a text that can be printed, and looked for in a folder."""
    return type(value) is str and not UNPRINTABLE.search(value)


def stays_inside(name):
    """Whether a path of any system stays in the folder that it is relative to."""
    name = name.replace("\\", "/")
    return not (name.startswith("/") or DRIVE.match(name) or ".." in name.split("/"))


def is_box(value):
    if type(value) is not list or len(value) != 4 or not NUMBERS.issuperset(map(type, value)):
        return False
    x, y, width, height = value
    return abs(x) < LARGEST and abs(y) < LARGEST and abs(width) < LARGEST and abs(height) < LARGEST
