"""Read the ground truth of a dataset and the detections in it as arrays."""

import os
from typing import NamedTuple

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog

from ..data import read_dataset
from ..data.coco import read_json
from ..data.ids import translated
from ..errors import InputError
from ..evaluation.coco import run_coco_eval

# Categories and images are indices into the dataset's; boxes are x, y, width, height in pixels.
OBJECT = np.dtype([("category", "i8"), ("image", "i8"), ("box", "f8", 4), ("area", "f8"), ("crowd", "?")])
DETECTION = np.dtype([("category", "i8"), ("image", "i8"), ("box", "f8", 4), ("score", "f8")])


class Dataset(NamedTuple):
    """A dataset with K classes and I images."""

    name: str
    classes: list  # K names, in the order of the detector's outputs
    category_ids: np.ndarray  # (K,) int64, increasing
    image_ids: np.ndarray  # (I,) int64, increasing
    files: list  # I paths
    objects: np.ndarray  # OBJECT (G,), the ground truth by image and class


class Boxes(NamedTuple):
    """Ground truth and detections of a dataset."""

    objects: np.ndarray  # OBJECT (G,), by image and class
    detections: np.ndarray  # DETECTION (D,), by image, class and decreasing score


def load_dataset(name):
    """Read a registered `Dataset` from the file that its detections were evaluated with.

    Raises an InputError if it is not registered, or if its file is missing, malformed or without annotations.
    """
    if name not in DatasetCatalog.list():
        raise InputError(f"there is no dataset named {name!r}")
    metadata = MetadataCatalog.get(name)
    if not metadata.get("json_file") or "thing_dataset_id_to_contiguous_id" not in metadata.as_dict():
        try:
            read_dataset(name)  # which sets both, and makes another file where it has to change what it reads
        except InputError:
            # A report needs no images.
            if not metadata.get("json_file"):
                raise
    path = metadata.json_file
    content = read_json(path)
    if isinstance(content, dict) and "annotations" not in content:
        raise InputError(f"{path}: has no annotations to compare with")
    try:
        return read_content(name, content, metadata.get("image_root") or "")
    except (TypeError, KeyError, ValueError, OverflowError, AttributeError) as error:
        raise InputError(f"{path}: not in COCO's format, or not well formed") from error


def read_content(name, content, image_folder):
    """Return the `Dataset` for the content of a json file; various errors are raised if it is malformed."""
    categories = sorted(content["categories"], key=lambda category: category["id"])
    images = sorted(content["images"], key=lambda image: image["id"])
    annotations = content["annotations"]
    category_ids = np.array([category["id"] for category in categories], dtype=np.int64)
    image_ids = np.array([image["id"] for image in images], dtype=np.int64)
    objects = read_rows(annotations, OBJECT, category_ids, image_ids)
    objects["area"] = [a.get("area", a["bbox"][2] * a["bbox"][3]) for a in annotations]
    objects["crowd"] = [a.get("iscrowd", 0) for a in annotations]
    if not images or not categories or (np.minimum(objects["category"], objects["image"]) < 0).any():
        raise ValueError
    return Dataset(
        name=name,
        classes=[str(category["name"]) for category in categories],
        category_ids=category_ids,
        image_ids=image_ids,
        files=[os.path.join(image_folder, image["file_name"]) for image in images],
        objects=objects[np.lexsort((objects["category"], objects["image"]))],
    )


def load_detections(path, dataset):
    """Read the boxes that an evaluation on a `Dataset` wrote: DETECTION (D,), and lines about boxes that are omitted.

    Raises an InputError if the file is missing or malformed, or if it has boxes of other images.
    """
    if not os.path.isfile(path):
        raise InputError(f"{path}: no evaluation has written its boxes")
    results = read_json(path)
    own_ids = MetadataCatalog.get(dataset.name).get("own_ids", {})
    numbers = {key: {own: number for number, own in ids.items()} for key, ids in own_ids.items()}
    try:
        if not isinstance(results, list):
            raise TypeError
        detections = read_results(translated(results, numbers), dataset)
    except (TypeError, ValueError, KeyError, OverflowError) as error:
        raise InputError(f"{path}: not in COCO's format of results") from error
    unknown = int((detections["image"] < 0).sum())
    if unknown:
        raise InputError(
            f"{path}: {unknown} of {len(results)} boxes are of images that dataset {dataset.name} does not have; "
            "evaluate again"
        )
    known = detections["category"] >= 0
    finite = np.isfinite(detections["box"]).all(axis=1) & np.isfinite(detections["score"])
    notes = [
        f"{(~good).sum()} of {len(results)} boxes are omitted: {why}."
        for good, why in ((finite, "their numbers are not finite"), (known, "the dataset lacks their classes"))
        if not good.all()
    ]
    return detections[finite & known], notes


def read_results(results, dataset):
    """Return sorted DETECTION (D,) for results in COCO's format, with -1 for unknown images and categories."""
    detections = read_rows(results, DETECTION, dataset.category_ids, dataset.image_ids)
    detections["score"] = [r["score"] for r in results]
    return detections[np.lexsort((-detections["score"], detections["category"], detections["image"]))]


def read_rows(entries, dtype, category_ids, image_ids):
    """Read N dicts into (N,) of a type: their boxes, and their categories and images as indices, -1 if unknown."""
    rows = np.empty(len(entries), dtype)
    for field, known in (("category", category_ids), ("image", image_ids)):
        ids = np.array([entry[f"{field}_id"] for entry in entries], dtype=np.int64)
        rows[field] = np.where(np.isin(ids, known), np.searchsorted(known, ids), -1)
    rows["box"] = np.array([entry["bbox"] for entry in entries], dtype=np.float64).reshape(-1, 4)
    return rows


def image_slice(rows, image):
    """Return the slice of the rows of an image, in ground truth or detections by image."""
    return slice(*np.searchsorted(rows["image"], [image, image + 1]))


def coco_eval(objects, detections, num_classes, **params):
    """Evaluate OBJECT (G,) and DETECTION (D,) with `run_coco_eval`; ids are the indices, boxes are numbered from 1."""
    images = np.union1d(objects["image"], detections["image"]).tolist()
    fields = (objects[name].tolist() for name in ("image", "category", "box", "area", "crowd"))
    ground_truth = {
        "images": [{"id": image} for image in images],
        "categories": [{"id": category, "name": str(category)} for category in range(num_classes)],
        "annotations": [
            {"id": i, "image_id": image, "category_id": category, "bbox": box, "area": area, "iscrowd": int(crowd)}
            for i, (image, category, box, area, crowd) in enumerate(zip(*fields, strict=True), 1)
        ],
    }
    results = np.column_stack([detections[name] for name in ("image", "box", "score", "category")])
    return run_coco_eval(ground_truth, results, **params)
