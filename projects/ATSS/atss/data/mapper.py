"""Maps the dict of an image to the detector's input."""

import copy

import numpy as np
import torch
from detectron2.config import configurable
from detectron2.data import DatasetMapper
from detectron2.data import transforms as T
from detectron2.data.detection_utils import (
    SizeMismatchError,
    check_image_size,
    filter_empty_instances,
    transform_instance_annotations,
)
from detectron2.structures import Boxes, BoxMode, Instances

from ..errors import InputError, first_line
from .augmentation import ImageInput, by_shape
from .image_io import MAX_PIXELS
from .pixels import read_pixels


class BoxDatasetMapper(DatasetMapper):
    """Detectron2's DatasetMapper for boxes: faster, for the images that `read_image` reads, with errors that name them.

    Images and boxes are those of `DatasetMapper`, and so are the random numbers that are drawn, in the same order.

    Args:
        ignore_crowd: whether to return crowd boxes, which Detectron2 drops: `ignore_boxes` (K, 4) float32, in pixels.
        max_pixels: maximum number of pixels of an image.
        resize_backend: what resizes images, by its name in `pixels.RESIZE_BACKENDS`.
        others: as for `DatasetMapper`; with `is_train` False annotations are skipped.
    """

    @configurable
    def __init__(self, is_train, *, ignore_crowd=False, max_pixels=MAX_PIXELS, resize_backend="pillow", **others):
        super().__init__(is_train, **others)
        self.augmentations.augs = [by_shape(augmentation) for augmentation in self.augmentations.augs]
        self.ignore_crowd = ignore_crowd
        self.max_pixels = max_pixels
        self.resize_backend = resize_backend

    @classmethod
    def from_config(cls, cfg, is_train=True):
        both = cfg.INPUT.RANDOM_FLIP == "both"
        if both:  # Detectron2 has one direction at a time
            cfg = cfg.clone()
            cfg.defrost()
            cfg.INPUT.RANDOM_FLIP = "horizontal"
        arguments = super().from_config(cfg, is_train)
        if both and is_train:
            arguments["augmentations"].append(T.RandomFlip(horizontal=False, vertical=True))
        return {
            **arguments,
            "ignore_crowd": cfg.MODEL.ATSS.IGNORE_CROWD,
            "max_pixels": cfg.INPUT.MAX_PIXELS,
            "resize_backend": cfg.INPUT.RESIZE_BACKEND_TRAIN if is_train else "pillow",
        }

    def __call__(self, record):
        """Read the image of a dict in Detectron2's standard form, and augment it and its boxes.

        Returns:
            A dict with `image`, (3, H, W) uint8, and in training `instances`; the given one is not changed.

        Raises:
            InputError: the image is missing, too large, cannot be read or resized, or does not have the dict's size.
        """
        record = dict(record)
        image, annotations = self.start(record)
        record.pop("annotations", None)
        height, width = image.shape[:2]
        try:
            transforms = self.augmentations(image)
        except ValueError as error:  # so narrow that no pixel would be left
            size = f"{width} x {height} pixels"
            raise InputError(f"{record['file_name']}: {size} cannot be resized ({first_line(error)})") from error
        record["image"] = image.tensor()
        if self.is_train and annotations is not None:
            record["annotations"] = annotations
            self._transform_annotations(record, transforms, image.shape[:2])
        return record

    def read(self, record):
        """The image of a dict, as `pixels.read_pixels`; raises InputError as when called."""
        pixels = read_pixels(record["file_name"], self.image_format, self.max_pixels, self.resize_backend)
        check_size(record, pixels)
        return pixels

    def start(self, record):
        """The `ImageInput` to augment, and the annotations that belong to it, or None."""
        return ImageInput(self.read(record)), record.get("annotations")

    def _transform_annotations(self, record, transforms, image_shape):
        if self.ignore_crowd:
            crowds = [{key: a[key] for key in ("bbox", "bbox_mode")} for a in record["annotations"] if a.get("iscrowd")]
            boxes = [transform_instance_annotations(crowd, transforms, image_shape)["bbox"] for crowd in crowds]
            record["ignore_boxes"] = torch.tensor(np.array(boxes), dtype=torch.float32).reshape(-1, 4)
        objects = [a for a in record["annotations"] if not a.get("iscrowd")]
        if self.use_instance_mask or self.use_keypoint or not all(map(has_ordinary_box, objects)):
            record["annotations"] = copy.deepcopy(record["annotations"])  # Detectron2 writes into them
            super()._transform_annotations(record, transforms, image_shape)
            return
        del record["annotations"]
        instances = Instances(image_shape)
        instances.gt_boxes = Boxes(transform_boxes(objects, transforms, image_shape))
        instances.gt_classes = torch.tensor([int(a["category_id"]) for a in objects], dtype=torch.int64)
        record["instances"] = filter_empty_instances(instances)


def has_ordinary_box(annotation):
    """Whether the box of an annotation is [x, y, width, height] as in COCO's files: floats, with integers among them.

    Detectron2 rounds the results of integers alone down.
    """
    types = set(map(type, annotation["bbox"]))
    return annotation["bbox_mode"] == BoxMode.XYWH_ABS and float in types and types <= {float, int}


def transform_boxes(annotations, transforms, image_shape):
    """Transform and clip the boxes of annotations, all at once: (K, 4) float64, x1 y1 x2 y2 in pixels.

    The values are those of Detectron2, which transforms them one by one and adds width and height in float32.
    """
    boxes = np.array([annotation["bbox"] for annotation in annotations], np.float32).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    height, width = image_shape
    boxes = transforms.apply_box(boxes.astype(np.float64)).clip(min=0)
    return np.minimum(boxes, [width, height, width, height])


def check_size(record, image):
    """Raise an InputError if an image (H, W, ...) does not have the size of its dict."""
    try:
        check_image_size(record, image)
    except SizeMismatchError as error:
        raise InputError(
            f"{record['file_name']}: {first_line(error)}; correct width and height in the annotation file"
        ) from error
