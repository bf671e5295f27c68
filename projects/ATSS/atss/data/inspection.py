"""Finds problems of well-formed datasets without opening an image."""

import os
from collections import Counter
from functools import cache
from itertools import combinations
from typing import NamedTuple

import numpy as np
from detectron2.structures import BoxMode

from .problems import located, problems_of
from .sources import EXTENSIONS, list_folder, with_extension

# A box that extends this far beyond its image, in pixels, does so because of rounding.
ROUNDING = 0.5


class Table(NamedTuple):
    """The M images and N annotations of a dataset as columns.

    name: name of the dataset.
    classes: list of names.
    file_names: list of M paths.
    sizes: (M, 2) int64, width and height; 0 where the dataset does not give them.
    image, label: (N,) int64, number of an annotation's image and class, from 0.
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
        """The table of dicts in Detectron2's standard form."""
        counts, boxes, modes, labels, crowds = [], [], [], [], []
        for record in dicts:
            annotations = record.get("annotations", ())
            counts.append(len(annotations))
            for annotation in annotations:
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
        """Annotation i as a line."""
        path, (width, height) = self.file_names[self.image[i]], self.sizes[self.image[i]]
        label, box = self.label[i], [round(x, 2) for x in self.boxes[i].tolist()]
        name = self.classes[label] if 0 <= label < len(self.classes) else f"class {label}"
        return f"{path} ({width} x {height}): {name} {box}"


def inspect(tables, to_learn=()):
    """Find what costs time or accuracy in datasets, one by one and side by side.

    Args:
        tables: list of `Table` of different names.
        to_learn: names of the datasets to train on.

    Returns:
        list of `Problem` with the names of their datasets.
    """
    problems = []
    for table in tables:
        found = missing_images(table.file_names) + image_problems(table) + box_problems(table)
        problems += located(table.name, found)
    problems += nothing_to_learn([table for table in tables if table.name in to_learn])
    return problems + different_classes(tables) + shared_images(tables, same_files)


def missing_images(file_names):
    names_in = cache(lambda folder: set(list_folder(folder)))  # each folder is listed once
    missing = []
    for path in file_names:
        folder, name = os.path.split(path)
        if name not in names_in(folder or "."):
            missing.append(path)
    return problems_of("missing images", missing, len(file_names), lambda path: f"{path}: the image is missing")


def image_problems(table):
    """Problems of images and classes with too few annotations or too many entries."""
    num_images, num_classes = len(table.file_names), len(table.classes)
    per_image = np.bincount(table.image, minlength=num_images)
    per_class = np.bincount(table.label[table.label >= 0], minlength=num_classes)[:num_classes]
    twice = [path for path, number in Counter(table.file_names).items() if number > 1]
    same_name = [name for name, number in Counter(table.classes).items() if number > 1]
    unused = [table.classes[k] for k in np.flatnonzero(per_class == 0)]
    empty = [table.file_names[i] for i in np.flatnonzero(per_image == 0)]
    return [
        *problems_of("images listed twice", twice, num_images),
        *problems_of("classes of the same name", same_name, num_classes),
        *problems_of("classes without annotations", unused, num_classes),
        *problems_of("images without annotations", empty, num_images),
    ]


def box_problems(table):
    """Problems of boxes that cannot be right."""
    x, y, width, height = table.boxes.T
    image_width, image_height = np.where(table.sizes > 0, table.sizes, np.inf)[table.image].T
    beyond = np.maximum.reduce([-x, -y, x + width - image_width, y + height - image_height])
    has_area = table.has_area()
    inside = has_area & (x < image_width) & (y < image_height) & (x + width > 0) & (y + height > 0)
    columns = (table.image, table.label, x, y, width, height, table.crowd)
    order = np.lexsort(columns)
    is_copy = np.zeros(len(order), dtype=bool)
    is_copy[order[1:]] = np.logical_and.reduce([np.diff(column[order]) == 0 for column in columns])
    having = {
        "boxes without area": ~has_area,
        "boxes outside of their image": has_area & ~inside,
        "boxes that extend beyond their image": inside & (beyond > ROUNDING),
        "boxes less than a pixel wide or high": inside & (np.minimum(width, height) < 1),
        "duplicate annotations": is_copy,
    }
    problems = []
    for kind, which in having.items():
        problems += problems_of(kind, np.flatnonzero(which), len(table.boxes), table.describe)
    return problems


def nothing_to_learn(tables):
    """Whether the datasets to train on have no ground-truth box at all."""
    if any((table.has_area() & ~table.crowd).any() for table in tables):
        return []
    names = [table.name for table in tables]
    return problems_of(
        "nothing to learn from", names, len(names), lambda name: f"{name} has no box with area", ", ".join(names)
    )


def different_classes(tables):
    """Classes that are not those of the first dataset."""
    others = [table for table in tables[1:] if table.classes != tables[0].classes]

    def describe(other):
        first = tables[0]
        return f"{first.name} has {', '.join(first.classes)}, but {other.name} has {', '.join(other.classes)}"

    return problems_of("different classes", others, len(tables), describe, ", ".join(table.name for table in tables))


def shared_images(tables, pairs_of):
    """Images that are in two datasets.

    Args:
        pairs_of: function of two lists of paths that returns pairs of a path of each, where their images are the same.
    """
    problems = []
    for first, second in combinations(tables, 2):
        pairs = pairs_of(first.file_names, second.file_names)
        lines = [path if path == other else f"{path} = {other}" for path, other in pairs]
        problems += problems_of("images in both", lines, len(first.file_names), where=f"{first.name}, {second.name}")
    return problems


def same_files(first, second):
    """Pairs of paths of the same file, or of files with the same name and number of bytes."""
    locate = locator()
    there = {locate(path): path for path in second}
    by_name = {name: path for (_, name), path in there.items()}
    pairs = []
    for path in dict.fromkeys(first):
        folder, name = locate(path)
        if (folder, name) in there:
            pairs.append((path, there[folder, name]))
        elif name in by_name and same_size(path, by_name[name]):
            pairs.append((path, by_name[name]))
    return pairs


def same_size(first, second):
    try:
        return os.path.getsize(first) == os.path.getsize(second)
    except OSError:
        return False


def locator():
    """Function of a path that returns (folder, name), the same for the same file."""
    real = cache(os.path.realpath)

    def locate(path):
        folder, name = os.path.split(path)
        return real(folder), name

    return locate


def unnamed_images(tables):
    """Images in the folders of the datasets' images that no dataset names."""
    locate = locator()
    named = {locate(path) for table in tables for path in table.file_names}
    folders = {os.path.dirname(path) for table in tables for path in table.file_names}
    present = [os.path.join(folder, name) for folder in sorted(folders) for name in list_folder(folder or ".")]
    unnamed = [path for path in with_extension(present, *EXTENSIONS) if locate(path) not in named]
    where = ", ".join(table.name for table in tables)
    return problems_of("images that no entry names", unnamed, len(unnamed) + len(named), where=where)
