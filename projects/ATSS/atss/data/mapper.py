"""Maps the dict of an image to the detector's input."""

import copy

import numpy as np
import torch
from detectron2.config import configurable
from detectron2.data import DatasetMapper
from detectron2.data import transforms as T
from detectron2.data.detection_utils import SizeMismatchError, check_image_size, transform_instance_annotations

from ..errors import InputError, first_line
from .image_io import MAX_PIXELS, read_image


class BoxDatasetMapper(DatasetMapper):
    """Detectron2's DatasetMapper for boxes, with `read_image` and with errors that name the image.

    Args:
        ignore_crowd: whether to return crowd boxes, which Detectron2 drops: `ignore_boxes` (K, 4) float32, in pixels.
        max_pixels: maximum number of pixels of an image.
        others: as for `DatasetMapper`; with `is_train` False annotations are skipped.
    """

    @configurable
    def __init__(self, is_train, *, ignore_crowd=False, max_pixels=MAX_PIXELS, **others):
        super().__init__(is_train, **others)
        self.ignore_crowd = ignore_crowd
        self.max_pixels = max_pixels

    @classmethod
    def from_config(cls, cfg, is_train=True):
        ours = {"ignore_crowd": cfg.MODEL.ATSS.IGNORE_CROWD, "max_pixels": cfg.INPUT.MAX_PIXELS}
        return {**super().from_config(cfg, is_train), **ours}

    def __call__(self, record):
        """Read the image of a dict in Detectron2's standard form, and augment it and its boxes.

        Raises:
            InputError: the image is missing, too large, cannot be read or resized, or does not have the dict's size.
        """
        record = copy.deepcopy(record)
        image = read_image(record["file_name"], self.image_format, self.max_pixels)
        check_size(record, image)
        augmented = T.AugInput(image)
        try:
            transforms = self.augmentations(augmented)
        except ValueError as error:  # so narrow that no pixel would be left
            size = f"{image.shape[1]} x {image.shape[0]} pixels"
            raise InputError(f"{record['file_name']}: {size} cannot be resized ({first_line(error)})") from error
        record["image"] = torch.as_tensor(np.ascontiguousarray(augmented.image.transpose(2, 0, 1)))
        if not self.is_train:
            record.pop("annotations", None)
        elif "annotations" in record:
            self._transform_annotations(record, transforms, augmented.image.shape[:2])
        return record

    def _transform_annotations(self, record, transforms, image_shape):
        if self.ignore_crowd:
            crowds = [{key: a[key] for key in ("bbox", "bbox_mode")} for a in record["annotations"] if a.get("iscrowd")]
            boxes = [transform_instance_annotations(crowd, transforms, image_shape)["bbox"] for crowd in crowds]
            record["ignore_boxes"] = torch.tensor(np.array(boxes), dtype=torch.float32).reshape(-1, 4)
        super()._transform_annotations(record, transforms, image_shape)


def check_size(record, image):
    """Raise an InputError if an image (H, W, ...) does not have the size of its dict."""
    try:
        check_image_size(record, image)
    except SizeMismatchError as error:
        raise InputError(
            f"{record['file_name']}: {first_line(error)}; correct width and height in the annotation file"
        ) from error
