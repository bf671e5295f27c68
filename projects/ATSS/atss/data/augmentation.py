"""Detectron2's augmentations of an image that is not yet an array."""

import copy

import cv2
import numpy as np
import torch
from detectron2.data import transforms as T
from PIL import Image

from .pixels import planes_of
from .resize import EvalResize

# Augmentations that look at nothing but the image's shape.
BY_SHAPE = (T.ResizeShortestEdge, T.Resize, T.RandomFlip, T.RandomCrop, EvalResize)
# OpenCV's codes of flips. Detectron2's are views, which cost more once they are copied.
FLIPS = {T.HFlipTransform: 1, T.VFlipTransform: 0}


def by_shape(augmentation):
    """A copy of an augmentation that `ImageInput` needs no array for, if it is one of BY_SHAPE; else itself."""
    if type(augmentation) not in BY_SHAPE:
        return augmentation
    augmentation = copy.copy(augmentation)
    augmentation.input_args = ("blank",)  # the attribute of the input that Detectron2 hands to `get_transform`
    return augmentation


class ImageInput(T.AugInput):
    """An image of a resize backend, as an input of Detectron2's augmentations.

    It becomes an array once an augmentation looks at its pixels, or transforms them in another way than by a crop, a
    bilinear resize or a horizontal flip; and an image of the backend again when it is resized.

    Args:
        pixels: image of one of `pixels.RESIZE_BACKENDS`.
        framed: whether it already has its size, and shows what it is to show.
    """

    def __init__(self, pixels, framed=False):
        self._pixels = pixels
        self.framed = framed
        self._array = None
        self.boxes = self.sem_seg = None

    @property
    def image(self):
        """The image as a (H, W, 3) array, uint8 unless an augmentation changed that."""
        if self._array is None:
            self._array = self._pixels.array()
        return self._array

    @image.setter
    def image(self, array):
        self._array = array

    @property
    def shape(self):
        """(H, W, 3)."""
        return self._pixels.shape if self._array is None else self._array.shape

    @property
    def blank(self):
        """An array of the image's shape without its pixels."""
        return np.broadcast_to(np.uint8(0), self.shape)

    def transform(self, transform):
        """Apply one of Detectron2's transforms, in place."""
        kind = type(transform)
        is_bilinear = kind is T.ResizeTransform and transform.interp == Image.Resampling.BILINEAR
        if is_bilinear and self._array is not None and self._array.dtype == np.uint8:
            self._pixels, self._array = self._pixels.of_array(self._array), None
        if self._array is not None and kind in FLIPS:
            self._array = cv2.flip(np.ascontiguousarray(self._array), FLIPS[kind])
        elif self._array is not None:
            self._array = transform.apply_image(self._array)
        elif is_bilinear:
            self._pixels = self._pixels.resized(transform.new_h, transform.new_w)
        elif kind is T.CropTransform:
            self._pixels = self._pixels.cropped(transform.x0, transform.y0, transform.w, transform.h)
        elif kind is T.HFlipTransform:
            self._pixels = self._pixels.flipped()
        elif kind is not T.NoOpTransform:
            self._array = transform.apply_image(self.image)

    def tensor(self):
        """The image as a (3, H, W) tensor, contiguous, and of the array's dtype."""
        if self._array is None:
            return self._pixels.tensor()
        if self._array.dtype == np.uint8:
            return planes_of(self._array)
        return torch.as_tensor(np.ascontiguousarray(self._array.transpose(2, 0, 1)))
