"""Mosaics of four images (Bochkovskiy et al. 2020, YOLOv4, arXiv 2004.10934, section 3.4)."""

import cv2
import numpy as np
from detectron2.data import transforms as T

from ..errors import InputError
from .arguments import interval, number
from .augmentation import ImageInput
from .cut_objects import follow
from .framing import plain_size, scaled_window
from .pixels import TorchPixels


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

    def draw(self, record, read, others):
        """Make a mosaic of a dict's image and three random ones of `others`, a sequence of dicts.

        `read` is a function of a dict that returns its image, as `pixels.read_pixels`. One is in memory at a time.

        Returns:
            (H, W, 3) uint8 array, and the annotations of its objects.

        Raises:
            InputError: one of the images cannot be used; if it is another one, the attribute `file_name` names it.
        """
        pixels = read(record)
        height, width = (max(1, side) for side in plain_size(self.resize, ImageInput(pixels)))
        canvas = np.empty((height, width, 3), np.uint8)
        cv2.rectangle(canvas, (0, 0), (width, height), self.fill, cv2.FILLED)  # a tenth of the time of np.full
        y, x = (round(side * np.random.uniform(0.3, 0.7)) for side in (height, width))
        annotations = self._paste(canvas, (0, 0, y, x), pixels, record)
        for quarter in ((0, x, y, width), (y, 0, height, x), (y, x, height, width)):
            other = others[np.random.randint(len(others))]
            annotations += self._paste(canvas, quarter, read_or_name(read, other), other)
        return canvas, annotations

    def _paste(self, canvas, quarter, pixels, record):
        """Put a window of a dict's image into a quarter (top, left, bottom, right), towards the middle of the mosaic.

        Returns the annotations of its objects there.
        """
        top, left, bottom, right = quarter
        if top == bottom or left == right:  # the mosaic is a pixel wide or high
            return []
        crop, resize = scaled_window(
            pixels.shape, canvas.shape[:2], (bottom - top, right - left), np.random.uniform(*self.scale)
        )
        height, width = resize.new_h, resize.new_w
        y, x = top or bottom - height, left or right - width
        piece = TorchPixels(pixels.cropped(crop.x0, crop.y0, crop.w, crop.h).array())  # which resizes fastest
        canvas[y : y + height, x : x + width] = piece.resized(height, width).array()
        annotations = follow(record.get("annotations", ()), T.TransformList([crop, resize]), (height, width))
        for annotation in annotations:
            annotation["bbox"][0] += x
            annotation["bbox"][1] += y
        return annotations


def read_or_name(read, record):
    """Read the image of a dict; an InputError gets the attribute `file_name`, as a mosaic has several."""
    try:
        return read(record)
    except InputError as error:
        error.file_name = record["file_name"]
        raise
