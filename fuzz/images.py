#!/usr/bin/env python
"""Image files of any content: three channels of the size that their header says, or refused in one line.

python fuzz/images.py -max_total_time=600
"""

import io
import warnings

import atheris

from harness import fuzz, working_folder

with atheris.instrument_imports(include=["atss.data.image_io", "PIL"]):
    import atss  # noqa: F401

    # isort: split
    import numpy as np
    from PIL import Image

    from atss.data.image_io import FORMATS, read_image, upright_size

# Keeps inputs quick: nothing beyond it is decoded.
MAX_PIXELS = 1_000_000

path = str(working_folder("images") / "image")
warnings.simplefilter("ignore")


def read(data):
    with open(path, "wb") as file:
        file.write(data)
    image = read_image(path, max_pixels=MAX_PIXELS)
    assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3, image.shape
    assert image.shape[1] * image.shape[0] <= MAX_PIXELS
    assert upright_size(path) == (image.shape[1], image.shape[0]), (upright_size(path), image.shape)


def encoded(mode, format, **options):
    """Bytes of a small image."""
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 4), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels, "RGBA").convert("RGB").convert(mode).save(buffer, format, **options)
    return buffer.getvalue()


if __name__ == "__main__":
    turned = Image.Exif()
    turned[0x0112] = 6
    seeds = {format.lower(): encoded("RGB", format) for format in FORMATS}
    seeds |= {f"{mode}-png": encoded(mode, "PNG", exif=turned) for mode in ("1", "L", "LA", "P", "RGBA", "I;16")}
    seeds |= {"cmyk": encoded("CMYK", "JPEG", exif=turned), "progressive": encoded("L", "JPEG", progressive=True)}
    compressions = ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg")
    seeds |= {name: encoded("RGB", "TIFF", compression=name, exif=turned) for name in compressions}
    seeds |= {"film": encoded("P", "GIF", save_all=True, append_images=[Image.new("P", (7, 5))])}
    fuzz(read, seeds, ["IHDR", "IDAT", "PLTE", "tRNS", "eXIf", "Exif\0\0", "RIFF", "WEBP", "VP8X", "GIF89a", "MM\0*"])
