"""Images on their way through augmentation, in the form that a library resizes fastest.

Detectron2's augmentations work on arrays. For each of them an array becomes a Pillow image that is resized, and an
array again, which is copied once more for a tensor. Here an image keeps its form from the decoder to the tensor.
"""

from math import ceil

import cv2
import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

from .image_io import MAX_PIXELS, open_image, to_array, to_rgb


class PillowPixels:
    """An image that Pillow resizes. All values are those of Detectron2's transforms.

    Args:
        image: Pillow image in mode RGB.
        format: "BGR" or "RGB", the order of the channels of arrays and tensors.
        mirrored: whether it stands for the image from right to left, which costs less once it is an array.
    """

    def __init__(self, image, format, mirrored=False):
        self.image = image
        self.format = format
        self.mirrored = mirrored
        self.shape = (image.height, image.width, 3)

    def resized(self, height, width):
        """The image at another size; raises ValueError if a side is less than a pixel."""
        # Pillow's weights are not symmetric to the last bit: what was flipped before must be resized as flipped.
        image = self.image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if self.mirrored else self.image
        return PillowPixels(image.resize((width, height), Image.Resampling.BILINEAR), self.format)

    def cropped(self, x, y, width, height):
        """A part of the image; x and y are those of its upper left corner."""
        x = self.shape[1] - x - width if self.mirrored else x
        return PillowPixels(self.image.crop((x, y, x + width, y + height)), self.format, self.mirrored)

    def flipped(self):
        """The image from right to left."""
        return PillowPixels(self.image, self.format, not self.mirrored)

    def of_array(self, pixels):
        """A (H, W, 3) uint8 array, in the same order of channels, as such an image."""
        rgb = cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB) if self.format == "BGR" else np.ascontiguousarray(pixels)
        return PillowPixels(Image.fromarray(rgb), self.format)

    def array(self):
        """The image as a (H, W, 3) uint8 array."""
        pixels = to_array(self.image, self.format)
        return cv2.flip(pixels, 1) if self.mirrored else pixels

    def tensor(self):
        """The image as a (3, H, W) uint8 tensor."""
        height, width, _ = self.shape
        planes = np.empty((3, height, width), np.uint8)
        for plane, channel in zip(planes, self.format, strict=True):
            values = np.frombuffer(self.image.tobytes("raw", channel), np.uint8).reshape(height, width)
            if self.mirrored:
                cv2.flip(values, 1, plane)
            else:
                plane[:] = values
        return torch.from_numpy(planes)


class TorchPixels:
    """An image that torch resizes: as Pillow does, but with weights of 16 bits instead of 32.

    Each of the two passes, along rows and along columns, can round a value to the next one: a value differs by 2 at
    most.

    Args:
        pixels: (H, W, 3) uint8 array.
    """

    def __init__(self, pixels):
        self.pixels = pixels
        self.shape = pixels.shape

    def resized(self, height, width):
        """The image at another size; raises ValueError if a side is less than a pixel."""
        if height < 1 or width < 1:
            raise ValueError("height and width must be > 0")
        # A batch with the strides of an array: torch then returns one like it, in a third of the time.
        batch = torch.from_numpy(np.ascontiguousarray(self.pixels).reshape(1, *self.shape)).permute(0, 3, 1, 2)
        resized = F.interpolate(batch, (height, width), mode="bilinear", align_corners=False, antialias=True)
        return TorchPixels(resized[0].permute(1, 2, 0).numpy())

    def cropped(self, x, y, width, height):
        """A part of the image; x and y are those of its upper left corner."""
        return TorchPixels(self.pixels[y : y + height, x : x + width])

    def flipped(self):
        """The image from right to left."""
        return TorchPixels(cv2.flip(np.ascontiguousarray(self.pixels), 1))

    def of_array(self, pixels):
        """A (H, W, 3) uint8 array as such an image."""
        return TorchPixels(pixels)

    def array(self):
        """The image as a (H, W, 3) uint8 array."""
        return np.ascontiguousarray(self.pixels)

    def tensor(self):
        """The image as a (3, H, W) uint8 tensor."""
        return planes_of(self.pixels)


def planes_of(pixels):
    """A (H, W, 3) uint8 array as a contiguous (3, H, W) tensor, in a third of the time of a transposed copy."""
    planes = np.empty((3, *pixels.shape[:2]), np.uint8)
    cv2.split(np.ascontiguousarray(pixels), list(planes))
    return torch.from_numpy(planes)


# Functions of a Pillow image in mode RGB and a format, by their name in INPUT.RESIZE_BACKEND_TRAIN.
RESIZE_BACKENDS = {"pillow": PillowPixels, "torch": lambda image, format: TorchPixels(to_array(image, format))}


def read_pixels(path, format="BGR", max_pixels=MAX_PIXELS, backend="pillow", scale=1.0):
    """Read an image to be augmented; `backend` is one of RESIZE_BACKENDS, all else as for `read_image`.

    With a `scale` below 1 a JPEG file is decoded at 1/2, 1/4 or 1/8 of its size if that is not less, in less time.
    """
    with open_image(path, max_pixels) as image:
        if scale < 1:
            image.draft(image.mode, [max(1, ceil(side * scale)) for side in image.size])
        return RESIZE_BACKENDS[backend](to_rgb(image), format)
