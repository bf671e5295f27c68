"""Finds problems of valid datasets without opening an image."""

import os
from collections import Counter
from functools import cache
from itertools import combinations
from typing import NamedTuple

import numpy as np
from detectron2.structures import BoxMode

from .problems import located, problems_of
from .sources import EXTENSIONS, list_folder

# Boxes may extend this far beyond their image, in pixels, because of rounding.
ROUNDING = 0.5
# A class is rare if the most frequent one has at least this many times its objects, and repeating images as often as
# the class of median frequency suggests would show it at least twice as often.
RARE, REPEATED = 10, 2


class Table(NamedTuple):
    """The M images and N annotations of a dataset as columns."""

    name: str  # of the dataset
    classes: list  # of names
    file_names: list  # of M paths
    sizes: np.ndarray  # (M, 2) int64, width and height; 0 if the dataset does not give them
    image: np.ndarray  # (N,) int64, index of an annotation's image
    label: np.ndarray  # (N,) int64, index of its class
    boxes: np.ndarray  # (N, 4) float64, x, y, width, height in pixels
    crowd: np.ndarray  # (N,) bool

    @classmethod
    def of(cls, name, dicts, classes):
        """Make a table from dicts in Detectron2's standard form."""
        per_image = [record.get("annotations", ()) for record in dicts]
        annotations = [annotation for of_image in per_image for annotation in of_image]
        boxes = np.array([annotation["bbox"] for annotation in annotations], dtype=np.float64).reshape(-1, 4)
        is_xyxy = np.array([annotation["bbox_mode"] == BoxMode.XYXY_ABS for annotation in annotations], dtype=bool)
        boxes[is_xyxy, 2:] -= boxes[is_xyxy, :2]
        return cls(
            name,
            list(classes),
            [record["file_name"] for record in dicts],
            np.array([(r.get("width", 0), r.get("height", 0)) for r in dicts], dtype=np.int64).reshape(-1, 2),
            np.repeat(np.arange(len(dicts)), [len(of_image) for of_image in per_image]),
            np.array([annotation["category_id"] for annotation in annotations], dtype=np.int64),
            boxes,
            np.array([annotation.get("iscrowd", 0) for annotation in annotations], dtype=bool),
        )

    def has_area(self):
        """(N,) bool, whether a box has width and height."""
        return (self.boxes[:, 2:] > 0).all(axis=1)

    def describe(self, i):
        """Describe annotation i in one line."""
        path, (width, height) = self.file_names[self.image[i]], self.sizes[self.image[i]]
        label, box = self.label[i], [round(x, 2) for x in self.boxes[i].tolist()]
        name = self.classes[label] if 0 <= label < len(self.classes) else f"class {label}"
        return f"{path} ({width} x {height}): {name} {box}"


def inspect(tables, to_learn=()):
    """List of `Problem` of each of a list of `Table` of different names, and of all together.

    `to_learn` are the names of the datasets to train on.
    """
    problems = []
    for table in tables:
        found = missing_images(table.file_names) + image_problems(table) + box_problems(table)
        problems += located(table.name, found)
    learned = [table for table in tables if table.name in to_learn]
    if not any((table.has_area() & ~table.crowd).any() for table in learned):
        lines = [f"{table.name} has no box with area" for table in learned]
        problems += problems_of("nothing to learn from", lines, len(lines), where=names_of(learned))
    return problems + different_classes(tables) + shared_images(tables, name_and_size(tables))


def missing_images(file_names):
    """Problem of images that do not exist."""
    names_in = cache(lambda folder: set(list_folder(folder or ".")))  # lists each folder once
    missing = [path for path in file_names if os.path.basename(path) not in names_in(os.path.dirname(path))]
    return problems_of("missing images", missing, len(file_names), lambda path: f"{path}: the image is missing")


def image_problems(table):
    """Problems of images and classes without annotations or with several entries."""
    num_images, num_classes = len(table.file_names), len(table.classes)
    per_image = np.bincount(table.image, minlength=num_images)
    per_class = np.bincount(table.label[table.label >= 0], minlength=num_classes)[:num_classes]
    repeated = [path for path, number in Counter(table.file_names).items() if number > 1]
    same_name = [name for name, number in Counter(table.classes).items() if number > 1]
    unused = [table.classes[k] for k in np.flatnonzero(per_class == 0)]
    empty = [table.file_names[i] for i in np.flatnonzero(per_image == 0)]
    return [
        *problems_of("images listed twice", repeated, num_images),
        *problems_of("classes of the same name", same_name, num_classes),
        *problems_of("classes without annotations", unused, num_classes),
        *problems_of("images without annotations", empty, num_images),
    ]


def rare_classes(tables):
    """Problem of classes with few objects in few images of all of a list of `Table` to train on together.

    A RepeatFactorTrainingSampler repeats the images of a class sqrt(t / f) times on average, where f is the fraction of
    the images that have the class and t is DATALOADER.REPEAT_THRESHOLD. The t in the messages is the median of f.
    """
    if not tables:
        return []
    classes, num_images = tables[0].classes, sum(len(table.file_names) for table in tables)
    objects, images = np.zeros((2, len(classes)), dtype=np.int64)
    for table in tables:
        known = (table.label >= 0) & (table.label < len(classes))
        objects += np.bincount(table.label[known], minlength=len(classes))
        pairs = np.unique(np.stack([table.image[known], table.label[known]]), axis=1)
        images += np.bincount(pairs[1], minlength=len(classes))
    learned = np.flatnonzero(objects)
    threshold = float(np.median(images[learned])) / num_images if len(learned) else 0
    most = objects.max(initial=0)
    is_rare = (objects * RARE <= most) & (images * REPEATED**2 <= threshold * num_images)
    rare = [k for k in learned if is_rare[k]]
    rare.sort(key=lambda k: images[k])

    def describe(k):
        few = f"{objects[k]:,} object{'s' if objects[k] > 1 else ''} in {images[k]:,} of {num_images:,} images"
        return (
            f"{classes[k]}: {few}, and {classes[objects.argmax()]} has {most / objects[k]:.0f} times as many objects; "
            f"DATALOADER.REPEAT_THRESHOLD {threshold:.2g}"
        )

    return problems_of("rare classes", rare, len(learned), describe, names_of(tables))


def box_problems(table):
    """Problems of boxes that are wrong or useless."""
    x, y, width, height = table.boxes.T
    image_width, image_height = np.where(table.sizes > 0, table.sizes, np.inf)[table.image].T
    beyond = np.maximum.reduce([-x, -y, x + width - image_width, y + height - image_height])
    has_area = table.has_area()
    inside = has_area & (x < image_width) & (y < image_height) & (x + width > 0) & (y + height > 0)
    columns = (table.image, table.label, x, y, width, height, table.crowd)
    order = np.lexsort(columns)
    is_copy = np.zeros(len(order), dtype=bool)
    is_copy[order[1:]] = np.logical_and.reduce([np.diff(column[order]) == 0 for column in columns])
    masks = {
        "boxes without area": ~has_area,
        "boxes outside of their image": has_area & ~inside,
        "boxes that extend beyond their image": inside & (beyond > ROUNDING),
        "boxes less than a pixel wide or high": inside & (np.minimum(width, height) < 1),
        "duplicate annotations": is_copy,
    }
    problems = []
    for kind, mask in masks.items():
        problems += problems_of(kind, np.flatnonzero(mask), len(table.boxes), table.describe)
    return problems


def different_classes(tables):
    """Problem of datasets whose classes are not those of the first one."""
    first = tables[0] if tables else None
    others = [table for table in tables if table.classes != first.classes]
    has = f"{first.name} has {', '.join(first.classes)}" if first else ""
    lines = [f"{has}, but {table.name} has {', '.join(table.classes)}" for table in others]
    return problems_of("different classes", lines, len(tables), where=names_of(tables))


def names_of(tables):
    return ", ".join(table.name for table in tables)


def shared_images(tables, key_of):
    """Problems of images in two datasets; `key_of` a path is the same for files of the same image, None if unknown."""
    problems = []
    for first, second in combinations(tables, 2):
        there = {key_of(path): path for path in second.file_names}
        keys = {path: key_of(path) for path in first.file_names}
        pairs = [(path, there[key]) for path, key in keys.items() if key is not None and key in there]
        lines = [path if path == other else f"{path} = {other}" for path, other in pairs]
        problems += problems_of("images in both", lines, len(first.file_names), where=names_of([first, second]))
    return problems


def name_and_size(tables):
    """Function of a path that returns its file's name and number of bytes; None for names that are not repeated."""
    numbers = Counter(os.path.basename(path) for table in tables for path in table.file_names)

    def key_of(path):
        name = os.path.basename(path)
        return (name, os.path.getsize(path)) if numbers[name] > 1 and os.path.isfile(path) else None

    return cache(key_of)


def unnamed_images(tables):
    """Problem of images in the datasets' image folders that no dataset names."""
    real = cache(os.path.realpath)
    named = {(real(folder), name) for table in tables for folder, name in map(os.path.split, table.file_names)}
    unnamed = []
    for folder in sorted({os.path.dirname(path) for table in tables for path in table.file_names}):
        names = list_folder(folder or ".", *EXTENSIONS)
        unnamed += [os.path.join(folder, name) for name in names if (real(folder), name) not in named]
    return problems_of("images that no entry names", unnamed, len(unnamed) + len(named), where=names_of(tables))
