"""Validates the entries of a dataset in COCO format, as far as object detection needs them."""

import re
from collections import defaultdict

from .ids import is_integer, numbered, unified
from .image_paths import stays_inside
from .problems import SHORT, problems_of
from .segmentation import LARGEST, box_of

# Maximum pixels of an image's side.
LARGEST_SIDE = 1_000_000
# Line separators, control characters of terminals, halves of surrogate pairs.
UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def is_printable(value):
    return type(value) is str and not UNPRINTABLE.search(value)


def is_id(value):
    return is_integer(value) or (is_printable(value) and value != "")


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

    Returns a content in COCO format with the valid entries, as `numbered` returns it, with a box for each annotation;
    and a list of `Problem`. If none of them is an error, all entries are valid, and other problems mean that some
    entries were changed.
    """
    if not isinstance(coco, dict):
        what = "not in COCO format: the file must hold an object with images and categories"
        return {"images": [], "categories": [], "annotations": []}, problems_of("no dataset", [what], 1)
    images, image_problems = sound_entries("images", coco.get("images"))
    categories, category_problems = sound_entries("categories", coco.get("categories"))
    problems = image_problems + category_problems
    # Files of test images have no annotations.
    sizes = {unified(image["id"]): (image["height"], image["width"]) for image in images}
    complete = completion(ids_of(coco.get("images")), ids_of(coco.get("categories")), sizes)
    annotations, found = sound_entries("annotations", coco.get("annotations", []), complete)
    if problems:
        # Problems of an image or class are not repeated for its annotations.
        labels = ids_of(categories)
        annotations = [
            a for a in annotations if unified(a["image_id"]) in sizes and unified(a["category_id"]) in labels
        ]
    content, others = numbered({"images": images, "categories": categories, "annotations": annotations})
    return content, problems + found + others


def ids_of(entries):
    """Set of the valid ids in a list of entries of any type."""
    ids = (unified(entry.get("id")) for entry in entries if type(entry) is dict) if isinstance(entries, list) else ()
    return {own for own in ids if is_id(own)}


def completion(images, categories, sizes):
    """Function of an annotation that returns it with a box, and its error if its ids are unknown, or None.

    `images` and `categories` are sets of ids; `sizes` is a dict from the ids of valid images to (height, width).
    """
    order = sorted(categories, key=lambda own: (type(own) is str, own))
    some = ", ".join(map(SHORT.repr, order[:10])) + (", ..." if len(order) > 10 else "")

    def complete(annotation):
        image, category = unified(annotation.get("image_id")), unified(annotation.get("category_id"))
        if not is_id(image) or image not in images:
            return annotation, ("annotations of no image", f"no image has the id {SHORT.repr(image)}")
        if not is_id(category) or category not in categories:
            what = f"no category has the id {SHORT.repr(category)}; there are {some}"
            return annotation, ("annotations of unknown classes", what)
        if image in sizes and not annotation.get("bbox") and annotation.get("segmentation"):
            try:
                annotation = {**annotation, "bbox": box_of(annotation["segmentation"], sizes[image])}
            except ValueError as error:
                return annotation, ("malformed annotations", f"'segmentation' must {error}")
        return annotation, None

    return complete


def sound_entries(key, entries, complete=lambda entry: (entry, None)):
    """The valid entries of the list `key`, a value of any type, and a list of `Problem`.

    `complete` is a function of an entry that returns the entry to use, and its kind of error and a message, or None.
    """
    if not isinstance(entries, list):
        return [], problems_of("no dataset", [f"not in COCO format: no list {key!r}"], 1)
    if not entries and key != "annotations":
        return [], problems_of("no dataset", [f"{key!r} is empty"], 1)
    sound, messages, seen = [], defaultdict(list), set()
    for i, entry in enumerate(entries):
        completed, error = entry, id_error(key, entry, seen)
        if not error:
            completed, error = complete(entry)
            error = error or value_error(key, completed)
        if error:
            kind, what = error
            messages[kind].append(f"{place_of(key, i, entry)}: {what}")
            continue
        sound.append(completed)
        if completed is not entry:
            messages["annotations with a segmentation alone"].append(place_of(key, i, entry))
    return sound, [problem for kind, found in messages.items() for problem in problems_of(kind, found, len(entries))]


def place_of(key, i, entry):
    """Where the owner of a dataset finds an entry."""
    if isinstance(entry, dict) and is_printable(entry.get("place")):
        return entry["place"]
    has_id = key == "annotations" and isinstance(entry, dict) and is_integer(entry.get("id"))
    return f"{key}[{i}]" + (f" (id {entry['id']})" if has_id else "")


def id_error(key, entry, seen):
    """Error of an entry of any type without an id of its own, or None; adds its id to the set `seen`.

    Annotations need no ids.
    """
    if type(entry) is not dict:
        return f"malformed {key}", "is not an object"
    if key == "annotations":
        return None
    entry_id = unified(entry.get("id"))
    if not is_id(entry_id):
        return f"malformed {key}", f"'id' must be an integer or a text, got {SHORT.repr(entry_id)}"
    if entry_id in seen:
        return f"{key} with an id that another has", f"{key}: two entries have the same 'id' {SHORT.repr(entry_id)}"
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
