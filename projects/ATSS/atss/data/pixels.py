"""Images on their way through augmentation, in the form that a library resizes fastest.

Detectron2's augmentations work on arrays. An array becomes a Pillow image to be resized, and an array again, and is
copied once more to become a tensor. Here an image stays what its decoder returned until it becomes a tensor.
"""

import io

import cv2
import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

from .image_io import is_upright, open_image, to_array, to_rgb

# Files that are larger than any JPEG file of their pixels are left to Pillow, which does not read them as a whole.
MAX_BYTES_PER_PIXEL, MAX_BYTES_OF_METADATA = 8, 1 << 24


class PillowPixels:
    """An image that Pillow has decoded and resizes. All values are those of Detectron2.

    Args:
        image: Pillow image in mode RGB.
        mirrored: whether it stands for the image from right to left, which is cheaper to do for an array.
    """

    def __init__(self, image, mirrored=False):
        self.image = image
        self.mirrored = mirrored
        self.shape = (image.height, image.width, 3)

    @classmethod
    def read(cls, path, max_pixels):
        """Read a file; arguments and errors are those of `read_image`."""
        with open_image(path, max_pixels) as image:
            return cls(to_rgb(image))

    def resized(self, height, width):
        """The image at another size; raises ValueError if a side is less than a pixel."""
        # Pillow's weights are not symmetric to the last bit: what was flipped before must be flipped before.
        image = self.image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if self.mirrored else self.image
        return PillowPixels(image.resize((width, height), Image.Resampling.BILINEAR))

    def flipped(self):
        """The image from right to left."""
        return PillowPixels(self.image, not self.mirrored)

    def array(self, format):
        """(H, W, 3) uint8 array; `format` is "BGR" or "RGB"."""
        pixels = to_array(self.image, format)
        return cv2.flip(pixels, 1) if self.mirrored else pixels

    def tensor(self, format):
        """(3, H, W) uint8 tensor; `format` is "BGR" or "RGB"."""
        height, width, _ = self.shape
        planes = np.empty((3, height, width), np.uint8)
        for plane, channel in zip(planes, format, strict=True):
            values = np.frombuffer(self.image.tobytes("raw", channel), np.uint8).reshape(height, width)
            if self.mirrored:
                cv2.flip(values, 1, plane)
            else:
                plane[:] = values
        return torch.from_numpy(planes)


class TorchPixels:
    """An image that torchvision has decoded, where it can, and that torch resizes.

    torchvision decodes JPEG files that are upright and have colours; all others, and damaged ones, are left to Pillow.
    Both decode with libjpeg-turbo. torch resizes with weights of 16 bits instead of Pillow's 22: a few values in 10,000
    differ by 1.

    Args:
        rgb: (H, W, 3) uint8 array.
    """

    def __init__(self, rgb):
        self.rgb = rgb
        self.shape = rgb.shape

    @classmethod
    def read(cls, path, max_pixels):
        """Read a file; arguments and errors are those of `read_image`."""
        with open_image(path, max_pixels) as image:
            rgb = _decode_with_torchvision(image)
            return cls(to_array(to_rgb(image), "RGB") if rgb is None else rgb)

    def resized(self, height, width):
        """The image at another size; raises ValueError if a side is less than a pixel."""
        if height < 1 or width < 1:
            raise ValueError("height and width must be > 0")
        # A batch with the strides of an array: torch then returns one like it, at a third of the time.
        batch = torch.from_numpy(np.ascontiguousarray(self.rgb).reshape(1, *self.shape)).permute(0, 3, 1, 2)
        resized = F.interpolate(batch, (height, width), mode="bilinear", align_corners=False, antialias=True)
        return TorchPixels(resized[0].permute(1, 2, 0).numpy())

    def flipped(self):
        """The image from right to left."""
        return TorchPixels(self.rgb[:, ::-1])

    def array(self, format):
        """(H, W, 3) uint8 array; `format` is "BGR" or "RGB"."""
        return np.ascontiguousarray(self.rgb[:, :, ::-1] if format == "BGR" else self.rgb)

    def tensor(self, format):
        """(3, H, W) uint8 tensor; `format` is "BGR" or "RGB"."""
        channels = self.rgb[:, :, ::-1] if format == "BGR" else self.rgb
        return torch.from_numpy(np.ascontiguousarray(channels.transpose(2, 0, 1)))


# By name in INPUT.IMAGE_BACKEND_TRAIN.
IMAGE_BACKENDS = {"pillow": PillowPixels, "torchvision": TorchPixels}


def check_image_backend(name):
    """Raise a ValueError if this machine lacks one of IMAGE_BACKENDS: torchvision can be built without libjpeg."""
    if name == "torchvision":
        file = io.BytesIO()
        Image.new("RGB", (8, 8)).save(file, "JPEG")
        try:
            _decode_jpeg(file.getvalue())
        except Exception as error:  # of the import, or of the operator that is not there
            raise ValueError("this machine's torchvision cannot decode JPEG files; 'pillow' can") from error


def _decode_with_torchvision(image):
    """(H, W, 3) uint8 array of an opened Pillow image, RGB; None if it must be left to Pillow."""
    if image.format != "JPEG" or image.mode != "RGB" or not is_upright(image):
        return None
    limit = MAX_BYTES_PER_PIXEL * image.width * image.height + MAX_BYTES_OF_METADATA
    image.fp.seek(0)
    data = image.fp.read(limit + 1)
    if len(data) > limit:
        return None
    try:
        rgb = _decode_jpeg(data)
    except RuntimeError:  # damaged: Pillow says how
        return None
    return rgb if rgb.shape == (image.height, image.width, 3) else None


def _decode_jpeg(data):
    """(H, W, 3) uint8 array, RGB, of the bytes of a JPEG file; raises RuntimeError if they are damaged."""
    from torchvision.io import ImageReadMode, decode_jpeg

    return decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8), ImageReadMode.RGB).permute(1, 2, 0).numpy()
