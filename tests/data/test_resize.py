"""Images are resized to the same sizes and pixels as by each codebase."""

import cv2
import numpy as np
import pytest
from detectron2.data import transforms as T
from PIL import Image

from atss.data import EvalResize


def image(height, width):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("size", [(480, 640), (640, 427), (427, 640), (100, 1000), (333, 500), (800, 1333)])
def test_like_detectron2(size):
    theirs = T.ResizeShortestEdge([800, 800], 1333).get_transform(image(*size)).apply_image(image(*size))

    ours = EvalResize(800, 1333).get_transform(image(*size)).apply_image(image(*size))

    assert np.array_equal(ours, theirs)


@pytest.mark.parametrize(
    "size, expected",
    [
        ((480, 640), (800, 1066)),  # 1066.67 rounded down
        ((640, 427), (1199, 800)),
        ((100, 1000), (133, 1330)),  # 1333 x 100 / 1000 = 133.3, then ten times that
        ((500, 500), (800, 800)),
    ],
)
def test_like_maskrcnn_benchmark_the_long_side_is_rounded_down(size, expected):
    transform = EvalResize(800, 1333, "maskrcnn-benchmark").get_transform(image(*size))

    assert (transform.new_h, transform.new_w) == expected
    resized = np.asarray(Image.fromarray(image(*size)).resize(expected[::-1], Image.Resampling.BILINEAR))
    assert np.array_equal(transform.apply_image(image(*size)), resized)


def test_like_mmdetection_opencv_resizes():
    transform = EvalResize(800, 1333, "mmdetection").get_transform(image(480, 640))

    resized = transform.apply_image(image(480, 640)[:, :, ::-1])

    expected = cv2.resize(image(480, 640)[:, :, ::-1].copy(), (1067, 800), interpolation=cv2.INTER_LINEAR)
    assert np.array_equal(resized, expected)


def test_a_size_of_zero_leaves_images_unchanged():
    assert np.array_equal(EvalResize(0, 0).get_transform(image(9, 7)).apply_image(image(9, 7)), image(9, 7))


def test_another_codebase_is_refused():
    with pytest.raises(ValueError, match="'caffe' is not one of detectron2, maskrcnn-benchmark, mmdetection"):
        EvalResize(800, 1333, "caffe")
