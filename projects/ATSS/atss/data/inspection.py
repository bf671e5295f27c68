"""What is wrong with a dataset, found without opening an image.

`sound_content` sees that a content has COCO's format; `inspect` looks at what the entries say.
"""

import os
import re
import reprlib
from collections import Counter
from collections.abc import Callable
from itertools import combinations
from typing import NamedTuple

import numpy as np
from detectron2.structures import BoxMode

from .problems import located, problems_of
from .sources import EXTENSIONS

# A box that reaches this far out of its image, in pixels, does so by rounding.
ROUNDING = 0.5
# Larger coordinates are no pixels.
LARGEST = 1e9
# Nor is that an image, in pixels of a side.
LARGEST_SIDE = 1_000_000
NUMBERS = {int, float}
DRIVE = re.compile("[a-zA-Z]:/")
# Ends of lines, what terminals obey, halves of characters.
UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
REPAIR = "correct the entry, or remove it"
# Values as messages show them, of which a file can have any.
SHOWN = reprlib.Repr()
SHOWN.maxstring = SHOWN.maxother = SHOWN.maxlong = 100
THINGS = {"images": "images", "categories": "classes", "annotations": "objects"}


class Rule(NamedTuple):
    """What an entry must be.

    kind: of problem where it is not.
    holds: function of an entry for which the rules before hold.
    says: function of an entry that breaks it -> what is wrong.
    """

    kind: str
    holds: Callable
    says: Callable


def sound_content(coco):
    """See that a content has COCO's format for object detection, as far as this project reads it.

    Args:
        coco: what a json file holds.

    Returns:
        the content with the entries that are good, all of it in the right form; and a list of `Problem`, all errors.
    """
    if not isinstance(coco, dict):
        what = ["not in COCO format: the file must hold an object with images and categories"]
        problems = problems_of("error", "no dataset", what, 1, "files", "name an annotation file in COCO's format")
        return {key: [] for key in THINGS}, problems
    images, problems = sound_entries("images", coco.get("images"), image_rules())
    categories, found = sound_entries("categories", coco.get("categories"), category_rules())
    problems += found
    known = {key: ids_of(coco.get(key)) for key in ("images", "categories")}
    # Files of test images have no annotations.
    annotations, found = sound_entries("annotations", coco.get("annotations", []), annotation_rules(**known))
    if problems:
        # What is wrong with an image or class is not said again of its objects.
        image_ids, category_ids = ids_of(images), ids_of(categories)
        annotations = [a for a in annotations if a["image_id"] in image_ids and a["category_id"] in category_ids]
    return {"images": images, "categories": categories, "annotations": annotations}, problems + found


def ids_of(entries):
    """Set of the ids of the entries that have one."""
    entries = entries if isinstance(entries, list) else []
    return {entry["id"] for entry in entries if type(entry) is dict and is_id(entry.get("id"))}


def sound_entries(key, entries, rules):
    """The entries that keep all rules, and a list of `Problem`; an entry counts for the first rule that it breaks."""
    if not isinstance(entries, list):
        what = [f"not in COCO format: no list {key!r}"]
        return [], problems_of("error", "no dataset", what, 1, "files", "see docs/own_data.md")
    if not entries and key != "annotations":
        return [], problems_of("error", "no dataset", [f"{key!r} is empty"], 1, "files", "fill it")
    sound, broken = [], {rule.kind: [] for rule in rules}
    # All rules at once: an entry is fetched from memory once, which is what takes time with a million of them.
    for i, entry in enumerate(entries):
        for rule in rules:
            if not rule.holds(entry):
                broken[rule.kind].append((rule, i, entry))
                break
        else:
            sound.append(entry)
    problems = []
    for kind, found in broken.items():
        problems += problems_of(
            "error", kind, found, len(entries), THINGS[key], REPAIR,
            lambda of: f"{place(key, *of[1:])}: {of[0].says(of[2])}",
        )  # fmt: skip
    return sound, problems


def place(key, i, entry):
    """Where an entry stands, for its owner to find it."""
    if isinstance(entry, dict) and "place" in entry:
        return entry["place"]
    with_id = key == "annotations" and isinstance(entry, dict) and is_id(entry.get("id"))
    return f"{key}[{i}]" + (f" (id {entry['id']})" if with_id else "")


def value_rule(kind, name, is_good, wanted, default=None):
    """That the value under `name`, or `default` where there is none, is good."""
    return Rule(
        kind,
        lambda entry: is_good(entry.get(name, default)),
        lambda entry: f"{name!r} {wanted}, got {SHOWN.repr(entry.get(name))}",
    )


def entry_rules(key):
    """Of all entries."""
    kind, seen = f"malformed {key}", set()

    def is_first(entry):
        size = len(seen)
        seen.add(entry["id"])
        return len(seen) > size

    return [
        Rule(kind, lambda entry: type(entry) is dict, lambda entry: "is not an object"),
        value_rule(kind, "id", is_id, "must be an integer"),
        Rule(
            f"{key} with an id that another has", is_first,
            lambda entry: f"{key}: two entries have the same 'id' {entry['id']}",
        ),
    ]  # fmt: skip


def category_rules():
    kind = "malformed categories"
    return [*entry_rules("categories"), value_rule(kind, "name", is_text, "must be a text that can be printed")]


def image_rules():
    kind = "malformed images"
    rules = [
        *entry_rules("images"),
        value_rule(kind, "file_name", is_text, "must be a text that can be printed"),
        value_rule(
            "images outside of their folder",
            "file_name",
            stays_inside,
            "must start from the image folder and stay in it",
        ),
    ]
    wanted = f"must be a positive integer, {LARGEST_SIDE} at most"
    for side in ("width", "height"):
        rules.append(value_rule(kind, side, lambda v: type(v) is int and 0 < v <= LARGEST_SIDE, wanted))
    return rules


def annotation_rules(images, categories):
    """Of objects, whose images and classes have these ids."""
    kind = "malformed annotations"
    some = ", ".join(map(str, sorted(categories)[:10])) + (", ..." if len(categories) > 10 else "")

    return [
        *entry_rules("annotations"),
        Rule(
            "objects of no image", lambda a: is_id(a.get("image_id")) and a["image_id"] in images,
            lambda a: f"no image has the id {SHOWN.repr(a.get('image_id'))}",
        ),
        Rule(
            "objects of unknown classes",
            lambda a: is_id(a.get("category_id")) and a["category_id"] in categories,
            lambda a: f"no category has the id {SHOWN.repr(a.get('category_id'))}; there are {some}",
        ),
        value_rule(kind, "bbox", is_box, "must be [x, y, width, height] in pixels"),
        value_rule(kind, "area", lambda v: type(v) in NUMBERS and abs(v) < LARGEST**2, "must be a number", default=0),
        value_rule(kind, "iscrowd", lambda v: v in (0, 1), "must be 0 or 1", default=0),
    ]  # fmt: skip


def is_id(value):
    return type(value) is int and abs(value) < 1 << 63


def is_text(value):
    """Whether it is one that can be printed and looked for in a folder."""
    return type(value) is str and not UNPRINTABLE.search(value)


def stays_inside(name):
    """Whether a path, of whichever system, leads to nowhere outside of the folder that it starts from."""
    name = name.replace("\\", "/")
    return not (name.startswith("/") or DRIVE.match(name) or ".." in name.split("/"))


def is_box(value):
    if type(value) is not list or len(value) != 4 or not NUMBERS.issuperset(map(type, value)):
        return False
    x, y, width, height = value
    return abs(x) < LARGEST and abs(y) < LARGEST and abs(width) < LARGEST and abs(height) < LARGEST


class Table(NamedTuple):
    """The M images and N objects of a dataset as columns.

    name: of the dataset.
    classes: list of names.
    file_names: list of M paths.
    sizes: (M, 2) int64, width and height; 0 where the dataset does not say.
    image, label: (N,) int64, number of an object's image and class, from 0.
    boxes: (N, 4) float64, x, y, width, height in pixels.
    crowd: (N,) bool.
    """

    name: str
    classes: list
    file_names: list
    sizes: np.ndarray
    image: np.ndarray
    label: np.ndarray
    boxes: np.ndarray
    crowd: np.ndarray

    @classmethod
    def of(cls, name, dicts, classes):
        """That of dicts in Detectron2's standard form."""
        counts, boxes, modes, labels, crowds = [], [], [], [], []
        for record in dicts:
            objects = record.get("annotations", ())
            counts.append(len(objects))
            for annotation in objects:
                boxes += annotation["bbox"]
                modes.append(annotation["bbox_mode"])
                labels.append(annotation["category_id"])
                crowds.append(bool(annotation.get("iscrowd", 0)))
        boxes = np.array(boxes, dtype=np.float64).reshape(-1, 4)
        ends = np.array(modes) == BoxMode.XYXY_ABS
        boxes[ends, 2:] -= boxes[ends, :2]
        return cls(
            name,
            list(classes),
            [record["file_name"] for record in dicts],
            np.array([(r.get("width", 0), r.get("height", 0)) for r in dicts], dtype=np.int64).reshape(-1, 2),
            np.repeat(np.arange(len(dicts)), counts),
            np.array(labels, dtype=np.int64),
            boxes,
            np.array(crowds, dtype=bool),
        )

    def has_area(self):
        """(N,) bool: whether a box has width and height."""
        return (self.boxes[:, 2:] > 0).all(axis=1)

    def describe(self, i):
        """Object i as a line."""
        box, (width, height) = [round(x, 2) for x in self.boxes[i].tolist()], self.sizes[self.image[i]]
        label = self.label[i]
        name = self.classes[label] if 0 <= label < len(self.classes) else f"class {label}"
        return f"{self.file_names[self.image[i]]} ({width} x {height}): {name} {box}"


def inspect(tables, to_learn=()):
    """Look for what costs time or accuracy in datasets that are well formed, one by one and side by side.

    Args:
        tables: list of `Table` of different names.
        to_learn: names of those to train on.

    Returns:
        list of `Problem` with the names of their datasets.
    """
    folders = Folders()
    found = []
    for table in tables:
        problems = missing_images(table.file_names, folders) + image_problems(table) + box_problems(table)
        found += located(table.name, problems)
    found += nothing_to_learn([table for table in tables if table.name in to_learn])
    return found + different_classes(tables) + shared_images(tables, folders)


class Folders:
    """The names in folders, each listed when it is first asked for."""

    def __init__(self):
        self._names = {}
        self._real = {}

    def names(self, folder):
        """Set of the names in a folder; empty where it cannot be listed."""
        if folder not in self._names:
            try:
                self._names[folder] = set(os.listdir(folder or "."))
            except OSError:
                self._names[folder] = set()
        return self._names[folder]

    def has(self, path):
        folder, name = os.path.split(path)
        return name in self.names(folder)

    def real(self, path):
        """(folder, name) of a file, the same for the same file."""
        folder, name = os.path.split(path)
        if folder not in self._real:
            self._real[folder] = os.path.realpath(folder)
        return self._real[folder], name


def missing_images(file_names, folders=None):
    """Paths of images that are not there."""
    folders = folders or Folders()
    missing = [path for path in file_names if not folders.has(path)]
    return problems_of(
        "error", "missing images", missing, len(file_names), "images",
        "does the image folder fit the annotation file?", lambda path: f"{path}: the image is missing",
    )  # fmt: skip


def image_problems(table):
    """Images and classes that have too few objects, or too many entries."""
    num_images, num_classes = len(table.file_names), len(table.classes)
    per_image = np.bincount(table.image, minlength=num_images)
    per_class = np.bincount(table.label[table.label >= 0], minlength=num_classes)
    twice = [path for path, number in Counter(table.file_names).items() if number > 1]
    same_name = [name for name, number in Counter(table.classes).items() if number > 1]
    return [
        *problems_of(
            "warning", "images listed twice", twice, num_images, "images", "unite the entries"
        ),
        *problems_of(
            "warning", "classes of the same name", same_name, num_classes, "classes", "unite them, or name them apart"
        ),
        *problems_of(
            "warning", "classes without objects", np.flatnonzero(per_class[:num_classes] == 0), num_classes, "classes",
            "is the class meant? Without objects it is neither learnt nor evaluated", lambda k: table.classes[k],
        ),
        *problems_of(
            "note", "images without objects", np.flatnonzero(per_image == 0), num_images, "images",
            "training leaves them out, or, with DATALOADER.FILTER_EMPTY_ANNOTATIONS False, learns from them, too",
            lambda i: table.file_names[i],
        ),
    ]  # fmt: skip


def box_problems(table):
    """Boxes that cannot be right."""
    x, y, width, height = table.boxes.T
    image_width, image_height = np.where(table.sizes > 0, table.sizes, np.inf)[table.image].T
    over = np.maximum.reduce([-x, -y, x + width - image_width, y + height - image_height])
    area = table.has_area()
    seen = (x < image_width) & (y < image_height) & (x + width > 0) & (y + height > 0)
    order = np.lexsort((*table.boxes.T, table.crowd, table.label, table.image))
    same = (table.image, table.label, *table.boxes.T, table.crowd)
    again = np.zeros(len(order), dtype=bool)
    again[order[1:]] = np.logical_and.reduce([np.diff(column[order]) == 0 for column in same])

    def found(kind, which, remedy):
        return problems_of("warning", kind, np.flatnonzero(which), len(table.boxes), "objects", remedy, table.describe)

    useless = "training leaves them out, evaluation counts them: correct or remove them"
    return [
        *found("boxes without area", ~area, useless),
        *found("boxes outside of their image", area & ~seen, useless),
        *found(
            "boxes that reach out of their image",
            area & seen & (over > ROUNDING),
            "training cuts them off, evaluation does not: cut them off in the annotations",
        ),
        *found(
            "boxes that are less than a pixel wide or high",
            area & seen & (np.minimum(width, height) < 1),
            "are the coordinates pixels? Nothing can be learnt from so little",
        ),
        *found(
            "objects given twice",
            again,
            "remove one of them: a detector is wrong with the second",
        ),
    ]


def nothing_to_learn(tables):
    """No object in any of the datasets to train on."""
    if any((table.has_area() & ~table.crowd).any() for table in tables):
        return []
    names = [table.name for table in tables]
    problems = problems_of(
        "error", "no object to learn", names, len(names), "datasets", "add objects, or train on another dataset",
        lambda name: f"{name} has no box with area",
    )  # fmt: skip
    return located(", ".join(names), problems)


def different_classes(tables):
    """Classes that are not those of the first dataset."""
    others = [table for table in tables[1:] if table.classes != tables[0].classes]
    problems = problems_of(
        "error", "different classes", others, len(tables), "datasets", "give them the same categories",
        lambda t: f"{tables[0].name} has {', '.join(tables[0].classes)}, but {t.name} has {', '.join(t.classes)}",
    )  # fmt: skip
    return located(", ".join(table.name for table in tables), problems)


def shared_images(tables, folders):
    """Images that are in two datasets: the same file, or one of the same name and size in bytes."""
    problems = []
    places = {table.name: {folders.real(path): path for path in table.file_names} for table in tables}
    for (first, here), (second, there) in combinations(places.items(), 2):
        shared = [path for place, path in here.items() if place in there]
        by_name = {name: path for (_, name), path in there.items()}
        shared += [
            path
            for place, path in here.items()
            if place not in there and place[1] in by_name and same_size(path, by_name[place[1]])
        ]
        found = problems_of(
            "warning", "images in both", sorted(shared), len(here), "images",
            "figures are too good on images that were trained on: leave them out of one of the two",
        )  # fmt: skip
        problems += located(f"{first}, {second}", found)
    return problems


def same_size(first, second):
    try:
        return os.path.getsize(first) == os.path.getsize(second)
    except OSError:
        return False


def unnamed_images(tables):
    """Images beside those of the datasets which none of them names."""
    folders = Folders()
    named = {folders.real(path) for table in tables for path in table.file_names}
    places = {os.path.dirname(path) for table in tables for path in table.file_names}
    beside = [
        os.path.join(folder, name)
        for folder in sorted(places)
        for name in sorted(folders.names(folder))
        if name.lower().endswith(EXTENSIONS) and folders.real(os.path.join(folder, name)) not in named
    ]
    problems = problems_of(
        "note", "images that no entry names", beside, len(beside) + len(named), "images",
        "they take no part; give them an entry, also where they have no objects",
    )  # fmt: skip
    return located(", ".join(table.name for table in tables), problems)
