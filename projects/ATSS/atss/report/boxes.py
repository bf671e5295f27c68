"""What is in a dataset and what a detector has found there, as arrays."""

import contextlib
import io
import os
from typing import NamedTuple

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog
from pycocotools.coco import COCO

from ..data import read_dataset
from ..data.coco import read_json
from ..errors import InputError

OBJECT = np.dtype([("category", "i8"), ("image", "i8"), ("box", "f8", 4), ("area", "f8"), ("crowd", "?")])
DETECTION = np.dtype([("category", "i8"), ("image", "i8"), ("box", "f8", 4), ("score", "f8")])


class Dataset(NamedTuple):
    """A dataset in COCO's format.

    name: that it is registered under.
    classes: names of the K classes, in the order of the detector's outputs.
    category_ids: (K,) int64, their ids in the file, rising.
    image_ids: (I,) int64, rising.
    files: paths of the I images.
    coco: `pycocotools.coco.COCO` with all of the file.
    """

    name: str
    classes: list
    category_ids: np.ndarray
    image_ids: np.ndarray
    files: list
    coco: COCO


class Boxes(NamedTuple):
    """Objects and detections of a dataset; `category` is a class, `image` an image, both counted from 0.

    objects: OBJECT (G,), in order of image and class.
    detections: DETECTION (D,), in order of image, class and falling score.
    """

    objects: np.ndarray
    detections: np.ndarray


def load_dataset(name):
    """Read a registered dataset from the file that its boxes were evaluated with.

    Returns:
        `Dataset`.

    Raises:
        InputError: it is not registered, or its file is missing, malformed or has no annotations.
    """
    if name not in DatasetCatalog.list():
        raise InputError(f"there is no dataset named {name!r}")
    if not MetadataCatalog.get(name).get("json_file"):
        read_dataset(name)  # fills it in, also where the dataset has another format
    metadata = MetadataCatalog.get(name)
    path = metadata.json_file
    content = read_json(path)
    if isinstance(content, dict) and "annotations" not in content:
        raise InputError(f"{path}: has no annotations to compare with")
    try:
        return read_content(name, content, metadata.get("image_root") or "")
    except (TypeError, KeyError, ValueError, OverflowError, AttributeError) as error:
        raise InputError(f"{path}: not in COCO's format, or not well formed") from error


def read_content(name, content, image_folder):
    """The `Dataset` of a file's content.

    Raises:
        TypeError, KeyError, ValueError, OverflowError, AttributeError: it is not as it should be.
    """
    categories = sorted(content["categories"], key=lambda category: category["id"])
    images = sorted(content["images"], key=lambda image: image["id"])
    dataset = Dataset(
        name=name,
        classes=[str(category["name"]) for category in categories],
        category_ids=np.array([category["id"] for category in categories], dtype=np.int64),
        image_ids=np.array([image["id"] for image in images], dtype=np.int64),
        files=[os.path.join(image_folder, image["file_name"]) for image in images],
        coco=indexed(content),
    )
    objects = read_objects(content["annotations"])
    known = np.isin(objects["category"], dataset.category_ids) & np.isin(objects["image"], dataset.image_ids)
    if not images or not categories or not known.all():
        raise ValueError
    return dataset


def indexed(content):
    """`pycocotools.coco.COCO` of a file's content."""
    coco = COCO()
    coco.dataset = content
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
    return coco


def load_results(path, dataset):
    """Read the boxes that an evaluation wrote.

    Args:
        path: file in COCO's format of results.
        dataset: `Dataset`.

    Returns:
        list of results, and a list of lines about those that were omitted.

    Raises:
        InputError: the file is missing or malformed, or of other images.
    """
    if not os.path.isfile(path):
        raise InputError(f"{path}: no evaluation has written its boxes")
    results = read_json(path)
    try:
        if not isinstance(results, list):
            raise TypeError
        numbers = np.array([(*r["bbox"], r["score"]) for r in results], dtype=np.float64).reshape(-1, 5)
        ids = np.array([(r["image_id"], r["category_id"]) for r in results], dtype=np.int64).reshape(-1, 2)
    except (TypeError, ValueError, KeyError, OverflowError) as error:
        raise InputError(f"{path}: not in COCO's format of results") from error
    strange = ~np.isin(ids[:, 0], dataset.image_ids)
    if strange.any():
        raise InputError(
            f"{path}: {strange.sum()} of {len(ids)} boxes are of images that dataset {dataset.name} does not have; "
            "evaluate again"
        )
    finite, known = np.isfinite(numbers).all(axis=1), np.isin(ids[:, 1], dataset.category_ids)
    notes = []
    if not finite.all():
        notes.append(f"{(~finite).sum()} of {len(results)} boxes are omitted: their numbers are not finite.")
    if not known.all():
        notes.append(f"{(~known).sum()} of {len(results)} boxes are omitted: of classes that the dataset lacks.")
    good = finite & known
    return (results if good.all() else [r for r, keep in zip(results, good, strict=True) if keep]), notes


def to_arrays(dataset, results):
    """The objects of a `Dataset` and a list of results -> `Boxes`."""
    objects, detections = read_objects(dataset.coco.dataset["annotations"]), read_detections(results)
    for rows in (objects, detections):
        rows["category"] = np.searchsorted(dataset.category_ids, rows["category"])
        rows["image"] = np.searchsorted(dataset.image_ids, rows["image"])
    # Both are in order of class already; a stable sort keeps it within an image.
    return Boxes(*(rows[np.argsort(rows["image"], kind="stable")] for rows in (objects, detections)))


def read_objects(annotations):
    """Annotations in COCO format -> OBJECT (G,), by category and image."""
    rows = read_boxes(annotations, OBJECT)
    rows["area"] = [a.get("area", a["bbox"][2] * a["bbox"][3]) for a in annotations]
    rows["crowd"] = [a.get("iscrowd", 0) for a in annotations]
    return rows[np.lexsort((rows["image"], rows["category"]))]


def read_detections(results):
    """Results in COCO format -> DETECTION (D,), by category, image and decreasing score."""
    rows = read_boxes(results, DETECTION)
    rows["score"] = [r["score"] for r in results]
    return rows[np.lexsort((-rows["score"], rows["image"], rows["category"]))]


def read_boxes(entries, dtype):
    rows = np.empty(len(entries), dtype)
    rows["category"] = [e["category_id"] for e in entries]
    rows["image"] = [e["image_id"] for e in entries]
    rows["box"] = np.array([e["bbox"] for e in entries], dtype="f8").reshape(-1, 4)
    return rows
