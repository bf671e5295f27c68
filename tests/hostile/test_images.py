"""Hostile images, through demo/demo.py, tools/check_dataset.py and training."""

import io
import os
import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from atss.data.image_io import FORMATS, MAX_PIXELS, read_image, upright_size
from atss.errors import InputError
from tests.helpers import DEMO_CONFIG, TINY, error_line, pairs, run

pytestmark = pytest.mark.slow


def encoded(format="PNG", size=(64, 48), mode="RGB", **options):
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, format, **options)
    return buffer.getvalue()


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, *chunks, depth=8, color=2):
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    end = [chunk(b"IDAT", zlib.compress(bytes(100))), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join([*chunks, *end])


def bmp(width, height):
    return b"BM" + struct.pack("<IHHI", 100, 0, 0, 54) + struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, *[0] * 6)


def gif(width, height):
    return b"GIF89a" + struct.pack("<HH", width, height) + b"\xf0\0\0" + bytes(6) + b"," + bytes(9) + b"\x02\0;"


def tiff(**tags):
    """A little-endian TIFF file of one strip of 100 bytes, with other values of tags by number; None for no tag."""
    values = {256: 8, 257: 4, 258: 8, 259: 1, 262: 1, 273: 200, 277: 1, 278: 4, 279: 100}
    values |= {int(number.removeprefix("t")): value for number, value in tags.items()}
    entries = [struct.pack("<HHII", number, 4, 1, value) for number, value in sorted(values.items())
               if value is not None]  # fmt: skip
    head = b"II*\0" + struct.pack("<IH", 8, len(entries)) + b"".join(entries) + bytes(4)
    return head.ljust(200, b"\0") + bytes(100)


JPEG, PNG = encoded("JPEG"), encoded("PNG")
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 48\n%%EndComments\n(MARKER) (w) file closefile showpage\n%%EOF\n"
IMAGES = {
    "empty": b"",
    "one byte": b"\xff",
    "zeros": bytes(10_000),
    "noise": np.random.default_rng(0).bytes(10_000),
    "text": b"no image",
    "html": b"<html><body>404</body></html>",
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
    "pdf": b"%PDF-1.4\n1 0 obj<<>>endobj",
    "eps, which is a program": EPS,
    "eps in a dos wrapping": b"\xc5\xd0\xd3\xc6" + struct.pack("<IIIIIIH", 30, len(EPS), 0, 0, 0, 0, 0) + EPS,
    "pcx, which has a decoder of its own": encoded("PCX"),
    "tga": encoded("TGA"),
    "icns": b"icns" + struct.pack(">I", 100) + bytes(92),
    "psd": b"8BPS\0\1" + bytes(100),
    "fits": b"SIMPLE  =                    T".ljust(2880),
    "jpeg header alone": JPEG[:200],
    "half a jpeg": JPEG[: len(JPEG) // 2],
    "half a png": PNG[: len(PNG) // 2],
    "png header alone": PNG[:33],
    "png of 4 billion by 4 billion": png(2**31 - 1, 2**31 - 1),
    "png of 2.5 billion pixels": png(50_000, 50_000),
    "png a pixel above the bound": png(MAX_PIXELS + 1, 1),
    "png without width": png(0, 10),
    "png of unknown colours": png(8, 4, color=5),
    "png whose text is compressed a thousandfold": png(8, 4, chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(1 << 25)))),
    "png whose profile is compressed a thousandfold": png(
        8, 4, chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(1 << 26)))
    ),
    "png with too few pixels": png(64, 48),
    "png with a broken check sum": PNG[:-20] + bytes(20),
    "bmp of 4 billion pixels": bmp(65_000, 65_000),
    "bmp of negative size": bmp(-5, -5),
    "bmp of no size": bmp(0, 0),
    "gif of 4 billion pixels": gif(65_535, 65_535),
    "gif without pixels": gif(8, 8),
    "ppm of 10 billion pixels": b"P6 100000 100000 255\n" + bytes(100),
    "ppm of a long number": b"P6 " + b"9" * 5000 + b" 1 255\n",
    "ppm of text": b"P3 8 4 255\n" + b"x " * 100,
    "tiff of 4 billion pixels": tiff(t256=65_000, t257=65_000),
    "tiff whose strip is elsewhere": tiff(t273=2**31),
    "tiff of tiles that are huge": tiff(t273=None, t278=None, t279=None, t322=2**30, t323=2**30, t324=200, t325=100),
    "tiff of 4 billion channels": tiff(t277=2**32 - 1),
    "tiff of an unknown compression": tiff(t259=9999),
    "tiff that goes round in a circle": b"II*\0" + struct.pack("<IHI", 8, 0, 8),
    "webp header alone": encoded("WEBP")[:30],
    "webp of 268 million pixels": b"RIFF\x1a\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + b"\xff\x3f\0\xff\x3f\0",
    "floating-point pixels": encoded("TIFF", mode="F"),
    "integers of 32 bits": encoded("TIFF", mode="I").replace(bytes([0, 0]), bytes([9, 9]), 0)[:300],
    "jpeg 2000 header alone": b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(100),
    "avif header alone": b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf" + bytes(100),
}  # fmt: skip


@pytest.mark.parametrize("data", IMAGES.values(), ids=IMAGES)
def test_the_demo_refuses_them(doors, tmp_path, data):
    path = tmp_path / "image.jpg"
    path.write_bytes(data.replace(b"MARKER", str(doors.marker).encode()))

    assert "1 of 1 inputs could not be read" in doors.demo(path)
    with pytest.raises(InputError) as caught:
        read_image(path)
    assert len(str(caught.value).splitlines()) == 1 and str(path) in str(caught.value)


@pytest.mark.parametrize(
    "name",
    ["empty", "text", "eps, which is a program", "half a jpeg", "png of 2.5 billion pixels", "png with too few pixels"],
)
def test_datasets_with_them_are_refused(doors, coco_file, name):
    """The check before training finds it; training ends with it and leaves no checkpoint."""
    annotations, images = coco_file()
    for number in range(3):
        Path(images, f"{number}.png").write_bytes(IMAGES[name])
    settings = {"DATASETS.REGISTER": [["hostile", annotations, images]], "DATASETS.TRAIN": ("hostile",)}
    settings["DATASETS.TEST"] = ()

    said = doors.check("--config-file", DEMO_CONFIG, *pairs({**TINY, **settings}))
    line = doors.train({**settings, "SOLVER.MAX_ITER": 2}, data=False, has_begun=True)

    assert "images that cannot be read" in said
    assert "the image cannot be read" in line and images in line


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo, lambda path: os.symlink("/dev/zero", path)],
                         ids=["folder", "pipe", "device"])  # fmt: skip
def test_files_that_are_not_regular(tmp_path, make):
    path = tmp_path / "image.jpg"
    make(path)

    with pytest.raises(InputError, match=r"image\.jpg: the image cannot be read \(it is not a regular file\)"):
        read_image(path)
    with pytest.raises(InputError, match="it is not a regular file"):
        upright_size(path)


def test_limits_smaller_and_larger_than_pillows(tmp_path, monkeypatch):
    """And nothing warns, between Pillow's two bounds either."""
    path = tmp_path / "image.png"
    path.write_bytes(PNG)
    assert read_image(path, max_pixels=64 * 48).shape == (48, 64, 3)
    with pytest.raises(InputError, match=r"64 x 48 are more than the 3071 pixels of INPUT\.MAX_PIXELS"):
        read_image(path, max_pixels=64 * 48 - 1)

    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    warnings.simplefilter("error")
    with pytest.raises(InputError, match=r"1999 pixels of INPUT\.MAX_PIXELS"):
        read_image(path, max_pixels=1999)
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)
    assert read_image(path, max_pixels=4000).shape == (48, 64, 3)


def test_large_images_below_the_limit_print_no_warning(tmp_path):
    """In a process of its own, whose warnings nobody catches."""
    path = tmp_path / "large.png"
    Image.new("1", (10_000, 10_000)).save(path)

    result = run("-c", f"from atss.data.image_io import upright_size; print(upright_size({str(path)!r}))",
                 env={"PYTHONWARNINGS": "default"})  # fmt: skip

    assert "(10000, 10000)" in result.stdout and "Bomb" not in result.stderr


def test_all_threads_refuse_too_large_images_with_the_limit_and_its_key(tmp_path):
    path = tmp_path / "bomb.png"
    path.write_bytes(png(50_000, 50_000))

    def is_refused(_):
        with pytest.raises(InputError, match=rf"bomb\.png.* more than the {MAX_PIXELS} pixels of INPUT\.MAX_PIXELS"):
            read_image(path)
        return True

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(is_refused, range(8)))


@pytest.mark.parametrize("format", [*FORMATS, "MPO"])
def test_known_formats_are_read_and_the_first_of_several_images_in_a_jpeg_file(tmp_path, format):
    several = {"save_all": True, "append_images": [Image.new("RGB", (8, 8))]} if format == "MPO" else {}
    path = tmp_path / "image"  # whatever a file is called
    path.write_bytes(encoded(format, **several))

    assert read_image(path).shape == (48, 64, 3)
    assert upright_size(path) == (64, 48)


def test_the_demo_as_a_process_refuses_a_program(doors, tmp_path):
    path = tmp_path / "program.jpg"
    path.write_bytes(EPS.replace(b"MARKER", str(doors.marker).encode()))
    settings = {**TINY, **doors.shapes, "MODEL.WEIGHTS": doors.weights}

    result = run("demo/demo.py", "--config-file", DEMO_CONFIG, "--input", path, "--output", doors.output, "--opts",
                 *pairs(settings), check=False)  # fmt: skip

    assert "1 of 1 inputs could not be read" in error_line(result)
    doors.nothing_left(has_begun=True)
