"""Resizing of images for testing, to the last pixel as the code does that a model was trained with."""

import cv2
import numpy as np
from detectron2.data import transforms as T

# The codebases whose way of resizing is known here.
RESIZE_LIKE = ("detectron2", "maskrcnn-benchmark", "mmdetection")


class OpenCVResize(T.ResizeTransform):
    """Resizes with OpenCV: bilinear from the four pixels around, without smoothing where images become smaller."""

    def apply_image(self, image, interp=None):
        return cv2.resize(np.ascontiguousarray(image), (self.new_w, self.new_h), interpolation=cv2.INTER_LINEAR)


class EvalResize(T.Augmentation):
    """Brings the short side of an image to `min_size`, or the long one to `max_size` where it would exceed that.

    Like "detectron2" sides are rounded to the nearest pixel and Pillow resizes; like "maskrcnn-benchmark" the long side
    is rounded down; like "mmdetection" OpenCV resizes.

    Args:
        min_size, max_size: in pixels; a `min_size` of 0 leaves images as they are.
        like: one of RESIZE_LIKE.

    Raises:
        ValueError: another `like`.
    """

    def __init__(self, min_size, max_size, like="detectron2"):
        if like not in RESIZE_LIKE:
            raise ValueError(f"like: {like!r} is not one of {', '.join(RESIZE_LIKE)}")
        self.min_size = min_size
        self.max_size = max_size
        self.like = like

    @classmethod
    def of(cls, cfg):
        """From a config: INPUT.MIN_SIZE_TEST, INPUT.MAX_SIZE_TEST, INPUT.RESIZE_LIKE."""
        return cls(cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST, cfg.INPUT.RESIZE_LIKE)

    def get_transform(self, image):
        """The transform for an image (H, W, ...)."""
        return self.of_size(*image.shape[:2])

    def of_size(self, height, width):
        """The transform for an image of this size."""
        resize = OpenCVResize if self.like == "mmdetection" else T.ResizeTransform
        return resize(height, width, *self.new_size(height, width))

    def new_size(self, height, width):
        """Height and width after resizing, a pixel at least."""
        if self.min_size == 0:
            return height, width
        sides = T.ResizeShortestEdge.get_output_shape(height, width, self.min_size, self.max_size)
        if self.like == "maskrcnn-benchmark":
            short, long = sorted((height, width))
            size = self.min_size
            if long / short * size > self.max_size:
                size = max(1, round(self.max_size * short / long))
            sides = (int(size * height / width), size) if width < height else (size, int(size * width / height))
        return max(1, sides[0]), max(1, sides[1])
