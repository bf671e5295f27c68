"""Drawing of detections, and reading ahead in a thread."""

import time

import numpy as np
import pytest

from atss.demo import pipeline, sources
from atss.errors import InputError
from atss.predictor import ImageDetections
from atss.utils.drawing import class_colors


def test_boxes_and_labels_are_drawn_in_the_colors_of_their_classes():
    """The colors of a BGR image are those of an RGB one."""
    frame = sources.Frame(sources.ImageFile("x.png"), "x.png", np.full((480, 640, 3), 127, np.uint8))
    boxes = np.array([[100.0, 100, 300, 300], [400, 200, 600, 400]], np.float32)
    detections = ImageDetections(boxes, np.array([0.87, 0.5], np.float32), np.array([0, 1]), ["cat", "dog"])
    colors = class_colors(2)

    drawn = pipeline.draw(frame, detections, colors)

    for color, (x1, y1, x2, y2) in zip(colors, boxes.astype(int).tolist(), strict=True):
        assert (drawn[y1, x1:x2] == color[::-1]).all() and (drawn[y1:y2, x2 - 1] == color[::-1]).all()
        assert (drawn[y1 - 6, x1 : x1 + 40] != 127).any(), "its label"
        assert (drawn[(y1 + y2) // 2, (x1 + x2) // 2] == 127).all()
    assert (drawn[440:] == 127).all() and (drawn[:, :60] == 127).all()


def test_prefetch_takes_only_a_few_items_in_advance():
    """Long videos stay on disk."""
    taken = []

    def endless():
        while True:
            taken.append(None)
            yield len(taken)

    items = pipeline.prefetch(pipeline.prefetch(endless(), 3), 2)
    for number in range(1, 200):
        assert next(items) == number
        assert len(taken) <= number + 7
    items.close()
    number = len(taken)
    time.sleep(0.05)
    assert len(taken) == number


def test_prefetch_raises_errors_after_the_items_before_them():
    def items():
        yield 1
        yield 2
        raise InputError("the third")

    prefetched = pipeline.prefetch(items(), 10)

    assert [next(prefetched), next(prefetched)] == [1, 2]
    with pytest.raises(InputError, match="the third"):
        next(prefetched)
