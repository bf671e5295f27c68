"""Reads image files of every kind as three channels of eight bits, upright."""

import contextlib
import os
import warnings

import numpy as np
from PIL import ExifTags, Image, ImageOps

from ..errors import InputError, first_line

# Formats of Pillow that are opened, whatever a file is called: those that neither start another program (EPS does) nor
# have a decoder that hardly anybody uses.
FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "GIF", "PPM", "JPEG2000", "AVIF")
# Pixels of the largest image that Pillow opens by default.
MAX_PIXELS = 178_956_970
# What 16 bits a channel are divided by to become 8.
TO_8_BITS = 257

# What is too large is refused, and what is not needs no warning.
warnings.simplefilter("ignore", Image.DecompressionBombWarning)


def read_image(path, format="BGR", max_pixels=MAX_PIXELS):
    """Read an image as a detector and a viewer should see it.

    It is turned as its EXIF orientation says; what is transparent shows a white ground; 16 bits of grey keep their
    range (65,535 is white); grey, palettes and CMYK become three channels; of several frames it is the first.

    Args:
        path: file that Pillow knows.
        format: "BGR" or "RGB", the order of the channels.
        max_pixels: width times height from which on it is not decoded.

    Returns:
        (H, W, 3) uint8 array.

    Raises:
        InputError: the file is missing, damaged, no image, too large, or of numbers without a known range; it is
            named.
    """
    try:
        with open_image(path, max_pixels) as image:
            rgb = np.array(to_rgb(image))
    except FileNotFoundError as error:
        raise InputError(f"{path}: the image is missing") from error
    except Exception as error:  # whatever a damaged image makes its decoder raise
        raise InputError(f"{path}: the image cannot be read ({first_line(error)})") from error
    return np.ascontiguousarray(rgb[:, :, ::-1]) if format == "BGR" else rgb


def open_image(path, max_pixels=MAX_PIXELS):
    """The Pillow image of a file, of which nothing is decoded yet; a context manager.

    Raises:
        OSError, ValueError, and others of its decoder: it is missing, damaged, too large, or no image of `FORMATS`.
    """
    if os.path.exists(path) and not os.path.isfile(path):  # reading a pipe would wait, a device never end
        raise ValueError("it is no file")
    # Pillow refuses twice its bound, which all of the process shares.
    if Image.MAX_IMAGE_PIXELS is not None and max_pixels > 2 * Image.MAX_IMAGE_PIXELS:
        Image.MAX_IMAGE_PIXELS = (max_pixels + 1) // 2
    try:
        image = Image.open(path, formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise ValueError(f"its pixels are more than the {max_pixels} pixels of INPUT.MAX_PIXELS") from error
    width, height = image.size
    if width * height > max_pixels:
        image.close()
        raise ValueError(f"{width} x {height} are more than the {max_pixels} pixels of INPUT.MAX_PIXELS")
    return image


def to_rgb(image):
    """A Pillow image of any mode, upright and in mode RGB.

    Raises:
        ValueError: its numbers have no known range.
        OSError, and others of its decoder: the file behind it is damaged.
    """
    image.load()
    # Cameras write EXIF data that break the standard; such an image is taken as it is.
    with contextlib.suppress(Exception):
        image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError("32 bits a pixel, of unknown range: save it with 8 or 16")
        image = Image.fromarray((values // TO_8_BITS).astype(np.uint8))
    if image.mode == "F":
        raise ValueError("floating-point pixels, of unknown range: save it with 8 or 16 bits")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def upright_size(path):
    """Width and height of an image file as `read_image` returns it, from its header alone.

    Raises:
        FileNotFoundError: it is missing.
        ValueError: it is not an image.
    """
    try:
        with open_image(path) as image:
            width, height = image.size
            # The size of TIFFs is upright in Pillow; for PNGs Pillow's own getexif would decode the whole image.
            orientation = Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1) if image.format != "TIFF" else 1
            return (height, width) if orientation in (5, 6, 7, 8) else (width, height)
    except FileNotFoundError:
        raise
    except Exception as error:  # whatever a damaged image makes its decoder raise
        raise ValueError(first_line(error)) from error
