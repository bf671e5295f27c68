"""Mosaics of four images (Bochkovskiy et al. 2020, YOLOv4, arXiv 2004.10934, section 3.4)."""

import cv2
import numpy as np
from detectron2.data import transforms as T

from ...errors import InputError
from ..pixels import TorchPixels
from .arguments import interval, number
from .cut_objects import follow
from .framing import fitting, plain_size, scaled_window


class Mosaic:
    """Four images in the four quarters of one, which has the size that the first one would have alone.

    The quarters meet at a random point; each shows a random window of its image.

    Args:
        scale: [from, to] of the size of an image, relative to its size alone; 0.1 to 2.
        p: probability.
        resize: Detectron2's ResizeShortestEdge, for the size of an image alone.
        fill: 3 values, the color where there is no image, in the order of its channels.
    """

    def __init__(self, scale=(0.4, 1.0), p=0.3, *, resize=None, fill=(0, 0, 0)):
        self.scale = interval("scale", scale, 0.1, 2)
        self.p = number("p", p, 0, 1)
        self.resize = resize
        self.fill = fill

    def draw(self, record, others, source):
        """Make a mosaic of a dict's image and three random ones of `others`, a sequence of dicts.

        `source` has the methods `size_of` and `read_reduced` of `AugmentedMapper`. It reads one image at a time.

        Returns:
            (H, W, 3) uint8 array, and the annotations of its objects.

        Raises:
            InputError: one of the images cannot be used; the attribute `file_name` names it.
        """
        height, width = (max(1, side) for side in plain_size(self.resize, source.size_of(record)))
        canvas = np.empty((height, width, 3), np.uint8)
        cv2.rectangle(canvas, (0, 0), (width, height), self.fill, cv2.FILLED)  # a tenth of the time of np.full
        y, x = (round(side * np.random.uniform(0.3, 0.7)) for side in (height, width))
        quarters = ((0, 0, y, x), (0, x, y, width), (y, 0, height, x), (y, x, height, width))
        records = [record, *(others[index] for index in np.random.randint(len(others), size=3).tolist())]
        annotations = []
        for quarter, shown in zip(quarters, records, strict=True):
            try:
                annotations += self._paste(canvas, quarter, shown, source)
            except InputError as error:
                error.file_name = shown["file_name"]
                raise
        return canvas, annotations

    def _paste(self, canvas, quarter, record, source):
        """Put a window of a dict's image into a quarter (top, left, bottom, right), towards the middle of the mosaic.

        Returns the annotations of its objects there.
        """
        top, left, bottom, right = quarter
        if top == bottom or left == right:  # the mosaic is a pixel wide or high
            return []
        full, fit, factor = source.size_of(record), canvas.shape[:2], np.random.uniform(*self.scale)
        pixels = source.read_reduced(record, factor * fitting(full, fit))
        crop, resize = scaled_window(pixels.shape, fit, (bottom - top, right - left), factor)
        height, width = resize.new_h, resize.new_w
        y, x = top or bottom - height, left or right - width
        piece = TorchPixels(pixels.cropped(crop.x0, crop.y0, crop.w, crop.h).array())  # which resizes fastest
        canvas[y : y + height, x : x + width] = piece.resized(height, width).array()
        reduce = T.ResizeTransform(*full, *pixels.shape[:2])
        annotations = follow(record.get("annotations", ()), T.TransformList([reduce, crop, resize]), (height, width))
        for annotation in annotations:
            annotation["bbox"][0] += x
            annotation["bbox"][1] += y
        return annotations
