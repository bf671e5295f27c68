"""The example that goes with an ONNX file prepares images, and suppresses, exactly as the project does."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.ops import batched_nms

from atss.data import RESIZE_LIKE, EvalResize
from atss.data.image_io import read_image
from atss.export import example
from atss.modeling.inference import resize_boxes


def detector(**settings):
    """An example's detector without a model."""
    made = example.Detector.__new__(example.Detector)
    made.settings = {"min_size": 80, "max_size": 133, "resize_like": "detectron2", "pixel_extent": 0, **settings}
    return made


@pytest.mark.parametrize("like", RESIZE_LIKE)
def test_sizes_are_those_of_the_project(like):
    sizes = np.random.default_rng(0).integers(1, 3000, (2000, 2)).tolist()

    for min_size, max_size in ((800, 1333), (160, 192), (80, 133), (0, 0)):
        resize = EvalResize(min_size, max_size, like)
        settings = {"min_size": min_size, "max_size": max_size, "resize_like": like}
        for height, width in sizes:
            assert example.new_size(height, width, settings) == resize.new_size(height, width)


@pytest.mark.parametrize("like", RESIZE_LIKE)
@pytest.mark.parametrize("size", [(200, 300), (301, 207), (40, 55), (80, 80)])
def test_resized_images_are_those_of_the_project(like, size):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)

    resized = detector(resize_like=like).resize(image)

    assert np.array_equal(resized, EvalResize(80, 133, like).get_transform(image).apply_image(image))


@pytest.mark.parametrize("extent", [0, 1])
def test_boxes_in_the_original_image_are_those_of_the_project(extent):
    boxes = np.random.default_rng(0).uniform(0, 100, (50, 4)).astype(np.float32)

    found = detector(pixel_extent=extent).in_original(boxes, (80, 120), (427, 640))

    assert found.dtype == np.float32
    expected = resize_boxes(torch.from_numpy(boxes), (80, 120), (427, 640), extent)
    torch.testing.assert_close(torch.from_numpy(found), expected)


def test_suppression_is_torchvisions():
    random = np.random.default_rng(0)
    corners, sides = random.uniform(0, 100, (300, 2)), random.uniform(10, 60, (300, 2))
    boxes = np.concatenate([corners, corners + sides], axis=1).astype(np.float32)
    scores, classes = random.random(300).astype(np.float32), random.integers(0, 4, 300)

    kept = example.suppress(boxes, scores, classes, 0.5)

    assert kept.tolist() == batched_nms(*map(torch.from_numpy, (boxes, scores, classes)), 0.5).tolist()
    assert example.suppress(boxes[:0], scores[:0], classes[:0], 0.5).shape == (0,)


RANDOM = np.random.default_rng(0)
IMAGES = {
    "grey of 16 bits": Image.fromarray(RANDOM.integers(0, 65536, (20, 30), np.uint16)),
    "transparent": Image.fromarray(RANDOM.integers(0, 256, (20, 30, 4), np.uint8)),
    "with palette": Image.fromarray(RANDOM.integers(0, 256, (20, 30, 3), np.uint8)).quantize(16),
}


@pytest.mark.parametrize("image", IMAGES.values(), ids=IMAGES)
def test_files_are_read_as_the_project_reads_them(image, tmp_path):
    image.save(tmp_path / "image.png")

    assert np.array_equal(example.read(tmp_path / "image.png"), read_image(tmp_path / "image.png", "RGB"))


def test_turned_images_are_upright(tmp_path):
    path, exif = tmp_path / "a.jpg", Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(RANDOM.integers(0, 256, (20, 30, 3), np.uint8)).save(path, exif=exif)

    assert example.read(path).shape == (30, 20, 3)
    assert np.array_equal(example.read(path), read_image(path, "RGB"))


def test_boxes_and_labels_are_drawn():
    image = np.full((200, 300, 3), 127, np.uint8)
    boxes = np.float32([[50, 60, 150, 160]])

    changed = (np.asarray(example.draw(image, boxes, ["cat 90%"], np.array([1]))) != 127).any(-1)

    assert changed[60, 50:151].all() and changed[160, 50:151].all() and changed[60:161, 150].all()
    assert not changed[120, 60:140].any() and not changed[:50].any() and not changed[:, 200:].any()
