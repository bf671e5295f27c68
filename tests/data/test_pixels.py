"""Images in the form of what resizes them: Pillow exactly, torch up to rounding."""

import numpy as np
import pytest
import torch
from PIL import Image

from atss.config import load_config
from atss.data.image_io import read_image
from atss.data.mapper import BoxDatasetMapper
from atss.data.pixels import RESIZE_BACKENDS, read_pixels
from atss.errors import InputError
from tests.data.test_mapper import SIZES, photograph
from tests.helpers import DEMO_CONFIG, TINY, pairs

every_backend = pytest.mark.parametrize("backend", RESIZE_BACKENDS)
every_format = pytest.mark.parametrize("format", ["BGR", "RGB"])


def in_format(image, format):
    """The array of a Pillow image in mode RGB."""
    return np.asarray(image)[:, :, ::-1] if format == "BGR" else np.asarray(image)


@every_backend
@every_format
@pytest.mark.parametrize("name", ["photo.jpg", "photo.png", "grey.jpg", "clear.png", "turned.jpg"])
def test_files_are_read_as_by_read_image(tmp_path, backend, format, name):
    image, turned = photograph(61, 43), Image.Exif()
    turned[0x0112] = 6
    mode = {"grey": "L", "clear": "RGBA"}.get(name.split(".")[0], "RGB")
    image.convert(mode).save(tmp_path / name, **({"exif": turned} if "turned" in name else {}))

    pixels, expected = read_pixels(tmp_path / name, format, backend=backend), read_image(tmp_path / name, format)

    assert pixels.shape == expected.shape
    for found in (pixels.array(), pixels.tensor().permute(1, 2, 0).numpy()):
        assert found.dtype == np.uint8 and np.array_equal(found, expected)


@every_backend
def test_files_that_cannot_be_read_are_named(tmp_path, backend):
    path = tmp_path / "half.jpg"
    photograph(61, 43).save(path)
    path.write_bytes(path.read_bytes()[:-100])

    with pytest.raises(InputError, match=r"half\.jpg: the image cannot be read \(.*truncated"):
        read_pixels(path, backend=backend)
    with pytest.raises(InputError, match=r"61 x 43 are more than the 2622 pixels of INPUT\.MAX_PIXELS"):
        read_pixels(path, max_pixels=61 * 43 - 1, backend=backend)


@every_backend
@every_format
def test_flips(backend, format):
    image = photograph(61, 43)
    pixels, expected = RESIZE_BACKENDS[backend](image, format), in_format(image, format)

    once, twice = pixels.flipped(), pixels.flipped().flipped()

    for flipped, values in ((once, expected[:, ::-1]), (twice, expected), (pixels, expected)):
        assert np.array_equal(flipped.array(), values) and flipped.array().flags.c_contiguous
        assert torch.equal(flipped.tensor(), torch.from_numpy(values.transpose(2, 0, 1).copy()))
        assert flipped.tensor().is_contiguous()


def test_what_was_flipped_before_is_resized_as_flipped():
    image = photograph(61, 43)
    mirrored = Image.fromarray(np.asarray(image)[:, ::-1].copy())

    found = RESIZE_BACKENDS["pillow"](image, "RGB").flipped().resized(80, 97)

    assert np.array_equal(found.array(), np.asarray(mirrored.resize((97, 80), Image.Resampling.BILINEAR)))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("height, width", [(96, 144), (20, 31), (5, 3), (43, 61)])
def test_torch_resizes_like_pillow_up_to_rounding_in_each_pass(size, height, width):
    image = photograph(*size)
    ours, pillows = (RESIZE_BACKENDS[name](image, "BGR").flipped().resized(height, width) for name in RESIZE_BACKENDS)

    assert ours.shape == pillows.shape == (height, width, 3)
    assert (ours.tensor().int() - pillows.tensor().int()).abs().max() <= 2


@every_backend
@pytest.mark.parametrize("height, width", [(0, 9), (9, 0)])
def test_no_image_is_resized_to_nothing(backend, height, width):
    with pytest.raises(ValueError, match="must be > 0"):
        RESIZE_BACKENDS[backend](photograph(61, 43), "BGR").resized(height, width)


def test_the_choice_of_the_config_is_that_of_training(shapes):
    cfg = load_config(DEMO_CONFIG, pairs({**TINY, **shapes, "INPUT.RESIZE_BACKEND_TRAIN": "torch"}))

    assert BoxDatasetMapper(cfg, True).resize_backend == "torch"
    assert BoxDatasetMapper(cfg, False).resize_backend == "pillow"


def test_training_images_are_those_of_detectron2_by_default(shapes):
    cfg = load_config(DEMO_CONFIG, pairs({**TINY, **shapes}))

    assert BoxDatasetMapper(cfg, True).resize_backend == "pillow"
