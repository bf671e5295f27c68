"""Reads image files of all common formats as upright images of three 8-bit channels."""

import contextlib
import os
import warnings

import numpy as np
from PIL import ExifTags, Image, ImageOps

from ..errors import InputError, first_line

# Formats that are opened, whatever the file's extension. Left out are formats that start another program, such as EPS,
# and rare ones, whose decoders are little tested.
FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "GIF", "PPM", "JPEG2000", "AVIF")
# Pillow's own limit, twice its default MAX_IMAGE_PIXELS.
MAX_PIXELS = 178_956_970
# 16-bit values are divided by this to become 8-bit values.
TO_8_BITS = 257

# Too large images are refused, so that the warning of large ones is not needed.
warnings.simplefilter("ignore", Image.DecompressionBombWarning)


def read_image(path, format="BGR", max_pixels=MAX_PIXELS):
    """Read an image as a detector and a viewer should see it.

    The image is rotated as its EXIF orientation demands. Transparent pixels are put on a white background. 16-bit grey
    keeps its range (65,535 is white). Grey, palette and CMYK images get three channels. Of several frames the first is
    read.

    Args:
        path: path of the file.
        format: "BGR" or "RGB", the order of the channels.
        max_pixels: maximum width times height.

    Returns:
        (H, W, 3) uint8 array.

    Raises:
        InputError: the image is missing, damaged, of no known format, too large, or has numbers of unknown range.
    """
    with open_image(path, max_pixels) as image:
        return to_array(to_rgb(image), format)


@contextlib.contextmanager
def open_image(path, max_pixels=MAX_PIXELS):
    """Yield the Pillow image of a file, not yet decoded; any error until it is closed is raised as an InputError."""
    try:
        if os.path.exists(path) and not os.path.isfile(path):  # reading a pipe could block, and a device may never end
            raise ValueError("it is not a regular file")
        # Pillow refuses twice its bound, which the whole process shares.
        if Image.MAX_IMAGE_PIXELS is not None and max_pixels > 2 * Image.MAX_IMAGE_PIXELS:
            Image.MAX_IMAGE_PIXELS = (max_pixels + 1) // 2
        with Image.open(path, formats=FORMATS) as image:
            width, height = image.size
            if width * height > max_pixels:
                raise ValueError(f"{width} x {height} are more than the {max_pixels} pixels of INPUT.MAX_PIXELS")
            yield image
    except FileNotFoundError as error:
        raise InputError(f"{path}: the image is missing") from error
    except Image.DecompressionBombError as error:
        what = f"its pixels are more than the {max_pixels} pixels of INPUT.MAX_PIXELS"
        raise InputError(f"{path}: the image cannot be read ({what})") from error
    except Exception as error:  # whatever a decoder raises on a damaged image
        raise InputError(f"{path}: the image cannot be read ({first_line(error)})") from error


def to_rgb(image):
    """Convert a Pillow image of any mode to an upright one in mode RGB; return it as it is if it is one already.

    Raises ValueError if its numbers have no known range, and errors of its decoder if its file is damaged.
    """
    image.load()
    if not is_upright(image):
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
    return image if image.mode == "RGB" else image.convert("RGB")


def is_upright(image):
    """Whether a Pillow image needs no rotation. EXIF data of some cameras break the standard: these are not rotated."""
    with contextlib.suppress(Exception):
        return image.getexif().get(ExifTags.Base.Orientation, 1) == 1
    return True


def to_array(image, format):
    """The pixels of a Pillow image in mode RGB as a (H, W, 3) uint8 array; `format` as for `read_image`."""
    pixels = np.frombuffer(image.tobytes("raw", format), np.uint8)
    return pixels.reshape(image.height, image.width, 3).copy()  # writable, unlike bytes


def upright_size(path, max_pixels=MAX_PIXELS):
    """Width and height of an image file as `read_image` returns it, from the header alone; raises the same errors."""
    with open_image(path, max_pixels) as image:
        width, height = image.size
        orientation = 1
        if image.format != "TIFF":  # Pillow's size of a TIFF file is upright
            with contextlib.suppress(Exception):  # as in `is_upright`
                # The getexif method of Pillow's PNG class would decode the whole image.
                orientation = Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1)
        return (height, width) if orientation in (5, 6, 7, 8) else (width, height)
