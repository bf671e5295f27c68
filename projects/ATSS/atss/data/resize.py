"""Resizes test images exactly as the codebase that a model was trained with."""

import numpy as np
from detectron2.data import transforms as T

# Codebases whose resizing is reproduced.
RESIZE_LIKE = ("detectron2", "maskrcnn-benchmark", "mmdetection")


class OpenCVResize(T.ResizeTransform):
    """Resizes with OpenCV: bilinear, without antialiasing when it reduces an image."""

    def apply_image(self, image, interp=None):
        import cv2  # here, so that models can be used without it

        return cv2.resize(np.ascontiguousarray(image), (self.new_w, self.new_h), interpolation=cv2.INTER_LINEAR)


class EvalResize(T.Augmentation):
    """Resizes the short side of an image to `min_size`, or the long side to `max_size` if it would exceed that.

    "detectron2" rounds sides to the nearest pixel and resizes with Pillow; "maskrcnn-benchmark" rounds the long side
    down; "mmdetection" resizes with OpenCV.

    Args:
        min_size, max_size: in pixels; a `min_size` of 0 leaves images unchanged.
        like: one of RESIZE_LIKE.

    Raises:
        ValueError: `like` is not in RESIZE_LIKE.
    """

    def __init__(self, min_size, max_size, like="detectron2"):
        if like not in RESIZE_LIKE:
            raise ValueError(f"like: {like!r} is not one of {', '.join(RESIZE_LIKE)}")
        self.min_size = min_size
        self.max_size = max_size
        self.like = like

    @classmethod
    def of(cls, cfg):
        """Make one from INPUT.MIN_SIZE_TEST, INPUT.MAX_SIZE_TEST, INPUT.RESIZE_LIKE of a config."""
        return cls(cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST, cfg.INPUT.RESIZE_LIKE)

    @classmethod
    def before_model(cls, cfg):
        """What resizes test images before they reach the model: None if TEST.AUG or TEST.TILE take them as they are."""
        return None if cfg.TEST.AUG.ENABLED or cfg.TEST.TILE.SIZE else cls.of(cfg)

    def get_transform(self, image):
        """The transform for an image (H, W, ...)."""
        return self.of_size(*image.shape[:2])

    def of_size(self, height, width):
        """The transform for an image of this size."""
        resize = OpenCVResize if self.like == "mmdetection" else T.ResizeTransform
        return resize(height, width, *self.new_size(height, width))

    def new_size(self, height, width):
        """Height and width after resizing, at least 1."""
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
