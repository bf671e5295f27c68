"""Images with boxes, and the part of an image around an error."""

import numpy as np
import pytest
from PIL import Image

from atss.errors import InputError
from atss.report.boxes import Boxes, read_content, read_results
from atss.report.images import LABEL, PREDICTION, draw_error, draw_pair, name_in_image, spread, window
from atss.utils.drawing import class_colors
from tests.report.runs import annotation, arrays, content_of, random_boxes, result


@pytest.mark.parametrize("seed", range(20))
def test_a_window_shows_boxes_with_surroundings(seed):
    random = np.random.default_rng(seed)
    width, height = random.integers(200, 1000, 2).tolist()
    corners = random.uniform(0, 100, (2, 4)) + np.array([50, 30, 150, 130])

    x1, y1, x2, y2 = window(corners, width, height)

    assert 0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height
    low, high = corners[:, :2].min(axis=0), corners[:, 2:].max(axis=0).clip(max=[width, height])
    assert x1 <= low[0] and y1 <= low[1] and x2 >= high[0] and y2 >= high[1]
    around = 0.6 * (high - low).max()
    assert x2 - x1 >= min(width, high[0] - low[0] + 2 * around) - 1
    if max(x2 - x1, y2 - y1) < min(width, height):
        assert (x2 - x1) / (y2 - y1) == pytest.approx(4 / 3, rel=0.02)


@pytest.mark.parametrize(
    "corners",
    [[-50, -50, -10, -10], [500, 500, 600, 600], [10, 10, 10, 10], [10, 10, 10.2, 10.2], [-1e9, -1e9, 1e9, 1e9]],
)
def test_a_window_of_an_odd_box_lies_in_the_image(corners):
    x1, y1, x2, y2 = window(np.array([corners], dtype=float), 120, 90)

    assert 0 <= x1 < x2 <= 120 and 0 <= y1 < y2 <= 90


def test_images_are_spread_over_those_with_boxes():
    boxes = arrays(*random_boxes(0, num_images=40))
    filled = np.unique(np.concatenate([boxes.objects["image"], boxes.detections["image"]]))

    few, all_ = spread(boxes, 5), spread(boxes, 100)

    assert len(few) == 5 and few[0] == filled[0] and few[-1] == filled[-1] and set(few) <= set(filled)
    assert np.diff(np.searchsorted(filled, few)).max() <= len(filled) / 4 + 1
    assert all_.tolist() == filled.tolist()
    assert not len(spread(arrays(content_of(2, ["a"], []), []), 5))


@pytest.fixture
def made(tmp_path):
    """A grey image with an object of class a, and two detections: of class b on it, of class a elsewhere."""
    Image.new("RGB", (120, 90), (128, 128, 128)).save(tmp_path / "1.png")
    content = content_of(1, ["a", "b"], [annotation(1, 10, [20, 30, 30, 20])])
    results = [result(1, 20, [40, 40, 40, 30], 0.9), result(1, 10, [1, 1, 5, 5], 0.5)]
    dataset = read_content("made", content, str(tmp_path))
    return dataset, Boxes(dataset.objects, read_results(results, dataset))


def has(image, color):
    return bool((image == color).all(axis=-1).any())


def test_boxes_have_the_colours_of_their_classes(made):
    dataset, boxes = made
    first, second = class_colors(2)

    labels, predictions = draw_pair(dataset, *boxes, 0)

    assert labels.shape == predictions.shape == (300, 400, 3)
    assert has(labels, first) and not has(labels, second)
    assert has(predictions, first) and has(predictions, second)
    x, y = round(20 * 400 / 120), round(30 * 400 / 120)
    assert labels[y + 10, x].tolist() == list(first), "the left side of the ground-truth box"


@pytest.mark.parametrize(
    "detection, object_, colors", [(-1, 0, [LABEL]), (1, -1, [PREDICTION]), (1, 0, [LABEL, PREDICTION])]
)
def test_an_error_shows_its_boxes(made, detection, object_, colors):
    path, image = draw_error(*made, detection, object_)

    assert [color for color in (LABEL, PREDICTION) if has(image, color)] == colors
    assert path == made[0].files[0] and max(image.shape) == 340


def test_a_missing_image_is_named(made, tmp_path):
    (tmp_path / "1.png").unlink()

    with pytest.raises(InputError, match=r"1\.png"):
        draw_error(*made, -1, 0)


@pytest.mark.parametrize(
    "name, drawn", [("cell", "cell"), ("Ελληνικά", "Ελληνικά"), ("猫", "class 4"), ("fox 🦊", "class 4")]
)
def test_names_that_the_font_lacks_become_numbers(name, drawn):
    assert name_in_image(name, 3) == drawn
