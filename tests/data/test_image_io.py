"""Images of the modes that cameras, scanners and programs write, as three 8-bit channels."""

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


def palette(*colors, width):
    """An image in mode P, a column a colour."""
    image = Image.fromarray(np.arange(width, dtype=np.uint8)[None], mode="P")
    image.putpalette([value for color in colors for value in color])
    return image


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


def test_palettes(saved):
    image = palette(RED, GREEN, BLACK, width=3)

    assert read(saved(image, "plain.png")) == [[RED, GREEN, BLACK]]
    assert read(saved(image, "one_clear.png", transparency=1)) == [[RED, WHITE, BLACK]]
    assert read(saved(image, "clear_and_half.png", transparency=bytes([0, 255, 128]))) == [[WHITE, GREEN, [127] * 3]]
    assert read(saved(image, "one_clear.gif", transparency=1)) == [[RED, WHITE, BLACK]]


@pytest.mark.parametrize(("mode", "color"), [("L", 77), ("RGB", (1, 2, 3))])
def test_a_single_colour_can_be_transparent(saved, mode, color):
    image = with_pixels(mode, color, 0 if mode == "L" else (0, 0, 0))

    assert read(saved(image, "key.png", transparency=color)) == [[WHITE, BLACK]]


def with_pixels(mode, *pixels):
    """An image of one row."""
    image = Image.new(mode, (len(pixels), 1))
    image.putdata(pixels)
    return image


@pytest.mark.parametrize(
    "image, name, expected",
    [
        (with_pixels("1", 0, 1), "bits.png", [BLACK, WHITE]),
        (with_pixels("1", 0, 1), "bits.tif", [BLACK, WHITE]),
        (with_pixels("L", 77), "grey.png", [[77, 77, 77]]),
        (with_pixels("LA", (0, 0), (90, 255)), "transparent_grey.png", [WHITE, [90, 90, 90]]),
    ],
)
def test_black_and_white_and_grey(saved, image, name, expected):
    assert read(saved(image, name)) == [expected]


@pytest.mark.parametrize("name", ["print.jpg", "print.tif"])
def test_cmyk(saved, name):
    """Red is all magenta and yellow; JPEG files hold it inverted."""
    ((pixel, *_), *_) = read(saved(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), name))

    assert np.abs(np.subtract(pixel, RED)).max() <= 2


@pytest.mark.parametrize("name", ["deep.png", "deep.tif"])
def test_sixteen_bits_of_grey_keep_their_range(saved, name):
    image = Image.fromarray(np.array([[0, 257, 32896, 65280, 65535]], dtype=np.uint16))
    assert image.mode == "I;16"

    assert read(saved(image, name)) == [[BLACK, [1, 1, 1], [128, 128, 128], [254, 254, 254], WHITE]]


@pytest.mark.parametrize("name", ["deep.png", "deep.tif"])
def test_sixteen_bits_of_colour(tmp_path, name):
    path = str(tmp_path / name)
    cv2.imwrite(path, np.array([[[0, 32896, 65535]]], dtype=np.uint16))

    assert read(path) == [[[255, 128, 0]]]


def test_32_bit_integers_of_16_bit_range_are_read_and_others_refused(saved):
    def tiff(*values):
        return saved(Image.fromarray(np.array([values], dtype=np.int32)), "integers.tif")

    assert read(tiff(0, 65535)) == [[BLACK, WHITE]]
    for values in ((-1, 0), (0, 65536)):
        with pytest.raises(InputError, match=r"integers\.tif.*32 bits"):
            read_image(tiff(*values))


def test_floating_point_is_refused(saved):
    path = saved(Image.fromarray(np.array([[0.5]], dtype=np.float32)), "floats.tif")

    with pytest.raises(InputError, match=r"floats\.tif.*floating-point"):
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
        1: lambda x: x,
        2: lambda x: x[:, ::-1],
        3: lambda x: x[::-1, ::-1],
        4: lambda x: x[::-1],
        5: lambda x: x.transpose(1, 0, 2),
        6: lambda x: np.rot90(x, 1),
        7: lambda x: x[::-1, ::-1].transpose(1, 0, 2),
        8: lambda x: np.rot90(x, -1),
    }[orientation](upright)
    path = saved(Image.fromarray(np.ascontiguousarray(stored)), name, exif=oriented(orientation))

    image = read_image(path, "RGB")

    assert image.shape == upright.shape
    assert np.abs(image[8:24:15, 8::16].astype(int) - upright[8:24:15, 8::16]).max() < 40
    assert np.array_equal(image, read_by_detectron2(path, "RGB"))


@pytest.mark.parametrize("exif", [oriented(99), b"Exif\0\0no such thing"])
def test_malformed_exif_is_ignored(saved, photograph, exif):
    path = saved(photograph, "odd.jpg", exif=exif)

    assert np.array_equal(read_image(path), read_image(saved(photograph, "plain.jpg")))


def test_exif_that_pillow_cannot_parse_is_ignored(saved, photograph):
    info = PngInfo()
    info.add_text("Raw profile type exif", "\n\n\nno number")
    path = saved(photograph, "odd.png", pnginfo=info)
    with pytest.raises(ValueError), Image.open(path) as image:
        ImageOps.exif_transpose(image)

    assert np.array_equal(read_image(path, "RGB"), np.asarray(photograph))


def test_the_first_frame_of_an_animation_is_read(saved):
    frames = [Image.new("RGB", (4, 4), color) for color in ("red", "lime", "black")]

    assert read(saved(frames[0], "film.gif", save_all=True, append_images=frames[1:])) == [[RED] * 4] * 4


@pytest.mark.parametrize("name", ["photo.jpg", "photo.png"])
def test_truncated_images_are_refused(saved, photograph, tmp_path, name):
    path = tmp_path / "half" / name
    path.parent.mkdir()
    whole = Path(saved(photograph, name)).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])

    with pytest.raises(InputError, match=rf"{path}: the image cannot be read .*truncated"):
        read_image(path)


def test_files_that_are_not_images_are_named(tmp_path):
    (tmp_path / "text.jpg").write_text("no image")
    (tmp_path / "empty.png").touch()

    for name in ("text.jpg", "empty.png", "."):
        with pytest.raises(InputError, match=rf"{tmp_path / name}: the image cannot be read"):
            read_image(str(tmp_path / name))
    with pytest.raises(InputError, match=rf"{tmp_path}/none\.jpg: the image is missing"):
        read_image(tmp_path / "none.jpg")


def test_pillow_images_in_memory():
    assert to_rgb(Image.new("RGBA", (1, 1), (255, 0, 0, 0))).getpixel((0, 0)) == tuple(WHITE)
