"""Images of the modes that cameras, scanners and programs write, as three 8-bit channels."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from detectron2.data.detection_utils import read_image as read_by_detectron2
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngInfo

from atss.data.image_io import read_image, to_rgb
from atss.errors import InputError

RED, GREEN, WHITE, BLACK = [255, 0, 0], [0, 255, 0], [255, 255, 255], [0, 0, 0]


@pytest.fixture
def saved(tmp_path):
    """Function: Pillow image, file name, arguments of `save` -> path."""

    def save(image, name, **arguments):
        image.save(tmp_path / name, **arguments)
        return str(tmp_path / name)

    return save


def read(path):
    """The pixels of an image as a nested list, RGB."""
    pixels = read_image(path, "RGB")
    assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3
    return pixels.tolist()


def with_pixels(mode, *pixels):
    """An image of one row."""
    image = Image.new(mode, (len(pixels), 1))
    image.putdata(pixels)
    return image


PALETTE = with_pixels("P", 0, 1, 2)
PALETTE.putpalette([*RED, *GREEN, *BLACK])


@pytest.fixture
def photograph():
    """An (80, 120, 3) image, smooth as JPEG likes it."""
    rng = np.random.default_rng(0)
    return Image.fromarray(rng.integers(0, 256, (5, 8, 3), dtype=np.uint8)).resize((120, 80), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("format", ["BGR", "RGB"])
@pytest.mark.parametrize("name", ["photo.jpg", "photo.png", "photo.webp", "photo.bmp"])
def test_ordinary_images_are_what_detectron2_reads(saved, photograph, name, format):
    path = saved(photograph, name)

    image = read_image(path, format)

    assert image.shape == (80, 120, 3) and image.dtype == np.uint8
    assert image.flags.c_contiguous and image.flags.writeable
    assert np.array_equal(image, read_by_detectron2(path, format))


@pytest.mark.parametrize("name", ["clear.png", "clear.webp", "clear.tif"])
def test_transparent_pixels_become_white(saved, name):
    image = with_pixels("RGBA", (255, 0, 0, 0), (255, 0, 0, 255), (0, 0, 0, 128))

    clear, opaque, half = read(saved(image, name, **({"lossless": True} if name.endswith("webp") else {})))[0]

    assert (clear, opaque) == (WHITE, RED)
    assert half == [127, 127, 127]


@pytest.mark.parametrize(
    "image, name, transparency, expected",
    [
        (PALETTE, "plain.png", None, [RED, GREEN, BLACK]),
        (PALETTE, "one_clear.png", 1, [RED, WHITE, BLACK]),
        (PALETTE, "clear_and_half.png", bytes([0, 255, 128]), [WHITE, GREEN, [127] * 3]),
        (PALETTE, "one_clear.gif", 1, [RED, WHITE, BLACK]),
        (with_pixels("L", 77, 0), "one_clear.png", 77, [WHITE, BLACK]),
        (with_pixels("RGB", (1, 2, 3), (0, 0, 0)), "one_clear.png", (1, 2, 3), [WHITE, BLACK]),
        (with_pixels("1", 0, 1), "bits.png", None, [BLACK, WHITE]),
        (with_pixels("1", 0, 1), "bits.tif", None, [BLACK, WHITE]),
        (with_pixels("L", 77), "grey.png", None, [[77, 77, 77]]),
        (with_pixels("LA", (0, 0), (90, 255)), "transparent_grey.png", None, [WHITE, [90, 90, 90]]),
    ],
)
def test_palettes_grey_and_colours_that_are_transparent(saved, image, name, transparency, expected):
    arguments = {} if transparency is None else {"transparency": transparency}

    assert read(saved(image, name, **arguments)) == [expected]


@pytest.mark.parametrize("name", ["print.jpg", "print.tif"])
def test_cmyk(saved, name):
    """Red is all magenta and yellow; JPEG files hold it inverted."""
    ((pixel, *_), *_) = read(saved(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), name))

    assert np.abs(np.subtract(pixel, RED)).max() <= 2


@pytest.mark.parametrize("name", ["deep.png", "deep.tif"])
def test_sixteen_bits_keep_their_range(saved, tmp_path, name):
    grey = Image.fromarray(np.array([[0, 257, 32896, 65280, 65535]], dtype=np.uint16))
    assert grey.mode == "I;16"
    assert read(saved(grey, name)) == [[BLACK, [1, 1, 1], [128, 128, 128], [254, 254, 254], WHITE]]

    cv2.imwrite(str(tmp_path / name), np.array([[[0, 32896, 65535]]], dtype=np.uint16))
    assert read(str(tmp_path / name)) == [[[255, 128, 0]]]


def test_32_bit_integers_of_16_bit_range_are_read(saved):
    assert read(saved(Image.fromarray(np.array([[0, 65535]], dtype=np.int32)), "integers.tif")) == [[BLACK, WHITE]]


@pytest.mark.parametrize(
    "values, dtype, reason",
    [([-1, 0], np.int32, "32 bits"), ([0, 65536], np.int32, "32 bits"), ([0.5], np.float32, "floating-point")],
)
def test_other_numbers_of_32_bits_are_refused(saved, values, dtype, reason):
    path = saved(Image.fromarray(np.array([values], dtype=dtype)), "numbers.tif")

    with pytest.raises(InputError, match=rf"numbers\.tif.*{reason}"):
        read_image(path)


def oriented(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


@pytest.mark.parametrize("name", ["camera.jpg", "camera.png"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_rotated_by_their_exif_orientation(saved, orientation, name):
    """The upright image has a red corner at its top left and a green one at its top right."""
    upright = np.zeros((32, 48, 3), np.uint8)
    upright[:16, :16], upright[:16, 32:] = RED, GREEN
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    path = saved(Image.fromarray(np.ascontiguousarray(stored)), name, exif=oriented(orientation))

    image = read_image(path, "RGB")

    assert image.shape == upright.shape
    assert np.abs(image[8:24:15, 8::16].astype(int) - upright[8:24:15, 8::16]).max() < 40
    assert np.array_equal(image, read_by_detectron2(path, "RGB"))


def test_malformed_exif_is_ignored_even_if_pillow_cannot_parse_it(saved, photograph):
    plain = read_image(saved(photograph, "plain.jpg"))
    for exif in (oriented(99), b"Exif\0\0no such thing"):
        assert np.array_equal(read_image(saved(photograph, "odd.jpg", exif=exif)), plain)

    info = PngInfo()
    info.add_text("Raw profile type exif", "\n\n\nno number")
    path = saved(photograph, "odd.png", pnginfo=info)
    with pytest.raises(ValueError), Image.open(path) as image:
        ImageOps.exif_transpose(image)

    assert np.array_equal(read_image(path, "RGB"), np.asarray(photograph))


def test_the_first_frame_of_an_animation_is_read(saved):
    frames = [Image.new("RGB", (4, 4), color) for color in ("red", "lime", "black")]

    assert read(saved(frames[0], "film.gif", save_all=True, append_images=frames[1:])) == [[RED] * 4] * 4


def test_truncated_images_and_files_that_are_not_images_are_named(saved, photograph, tmp_path):
    for name in ("half.jpg", "half.png"):
        path = Path(saved(photograph, name))
        os.truncate(path, path.stat().st_size // 2)
    (tmp_path / "text.jpg").write_text("no image")
    (tmp_path / "empty.png").touch()

    reasons = {"half.jpg": ".*truncated", "half.png": ".*truncated", "text.jpg": "", "empty.png": "", ".": ""}
    for name, reason in reasons.items():
        with pytest.raises(InputError, match=rf"{tmp_path / name}: the image cannot be read {reason}"):
            read_image(str(tmp_path / name))
    with pytest.raises(InputError, match=rf"{tmp_path}/none\.jpg: the image is missing"):
        read_image(tmp_path / "none.jpg")


def test_pillow_images_in_memory():
    assert to_rgb(Image.new("RGBA", (1, 1), (255, 0, 0, 0))).getpixel((0, 0)) == tuple(WHITE)
