"""Images of a report: ground truth beside detections, and errors with their surroundings."""

import io
import os
from functools import cache

import cv2
import matplotlib
import numpy as np
from matplotlib.ft2font import FT2Font
from PIL import Image

from ..data.image_io import read_image
from ..utils.drawing import class_colors, draw_boxes
from .theme import shortened

# The longer side of images, and of crops, in pixels.
IMAGE, CROP = 400, 340
# Crops show so much on each side of a box, in its longer side, and are at least so wide in pixels of the image.
AROUND, LEAST_CROP = 0.6, 64
CROP_SHAPE = 4 / 3
# With more boxes, names would hide the image.
NAMED_BOXES = 15
JPEG_QUALITY = 82
# Of an object and of a detection in crops, and around both.
LABEL, PREDICTION, EDGE = (64, 224, 160), (255, 140, 40), (20, 20, 20)


def spread(boxes, number):
    """Places of images with objects or detections, evenly spread over the dataset: (n,), rising."""
    images = np.union1d(boxes.objects["image"], boxes.detections["image"])
    return images[np.unique(np.linspace(0, len(images) - 1, min(number, len(images))).round().astype(int))]


def of_image(rows, image):
    """Those of an image, of objects or detections in order of image."""
    return rows[slice(*np.searchsorted(rows["image"], [image, image + 1]))]


def draw_pair(dataset, objects, detections, index):
    """An image with its objects, and with detections, the best on top, in the colours of their classes.

    Args:
        dataset: `Dataset`.
        objects, detections: OBJECT (G,) and DETECTION (D,) of the image.
        index: place of the image.

    Returns:
        two (H, W, 3) uint8, RGB.

    Raises:
        InputError: the image is missing or cannot be read.
    """
    image = read_image(dataset.files[index], format="RGB")
    image, scale = resized(image, IMAGE / max(image.shape[:2]))
    colors = class_colors(len(dataset.classes))
    detections = detections[np.argsort(-detections["score"], kind="stable")]
    named = max(len(objects), len(detections)) <= NAMED_BOXES
    drawn = []
    for rows in (objects, detections):
        labels = [label_of(dataset, row) if named else "" for row in rows]
        shades = [colors[k] for k in rows["category"]]
        drawn.append(draw_boxes(image, to_corners(rows["box"]) * scale, labels, shades, min_long_side=0))
    return tuple(drawn)


def label_of(dataset, row):
    """What stands at an object or a detection in an image."""
    name = name_in_image(dataset.classes[row["category"]], row["category"])
    if "score" in row.dtype.names:
        return f"{name} {row['score']:.2f}"
    return f"{name} (crowd)" if row["crowd"] else name


def draw_error(dataset, boxes, detection, object_):
    """Part of an image around a detection, an object or both, with these boxes in the colours of their kind.

    Args:
        dataset: `Dataset`.
        boxes: `Boxes`.
        detection, object_: places in them, -1 for none.

    Returns:
        (H, W, 3) uint8, RGB.

    Raises:
        InputError: the image is missing or cannot be read.
    """
    shown, colors = [], []
    if detection >= 0:
        shown, colors = [*shown, boxes.detections[detection]], [*colors, PREDICTION]
    if object_ >= 0:
        shown, colors = [*shown, boxes.objects[object_]], [*colors, LABEL]
    # The first has a label: that of another box would lie under it.
    labels = [label_of(dataset, shown[0])] + [""] * (len(shown) - 1)
    image = read_image(dataset.files[shown[0]["image"]], format="RGB")
    corners = to_corners(np.array([row["box"] for row in shown]))
    x1, y1, x2, y2 = window(corners, image.shape[1], image.shape[0])
    part, scale = resized(image[y1:y2, x1:x2], CROP / max(x2 - x1, y2 - y1))
    corners = (corners - [x1, y1, x1, y1]) * scale
    # A dark edge outside, which shows on grounds of the same colour.
    edges = corners + np.array([-1, -1, 1, 1])
    labels, colors = [*labels, *[""] * len(shown)], [*colors, *[EDGE] * len(shown)]
    return draw_boxes(part, np.concatenate([corners, edges]), labels, colors, min_long_side=0)


def window(corners, width, height):
    """The part of an image that shows boxes (N, 4): x1, y1, x2, y2 as integers, at least a pixel wide and high.

    It is of CROP_SHAPE and lies in the image, as far as that is large enough.
    """
    low, high = corners[:, :2].min(axis=0), corners[:, 2:].max(axis=0)
    low, high = (np.clip(ends, 0, [width, height]) for ends in (low, high))
    wide, tall = high - low + 2 * AROUND * (high - low).max()
    wide, tall = max(wide, tall * CROP_SHAPE, LEAST_CROP), max(tall, wide / CROP_SHAPE, LEAST_CROP / CROP_SHAPE)
    sides = np.minimum(np.ceil([wide, tall]), [width, height]).astype(int)
    start = np.clip(np.round((low + high - sides) / 2).astype(int), 0, [width, height] - sides)
    return *start.tolist(), *(start + sides).tolist()


def resized(image, scale):
    """An image at a scale, and the scale."""
    size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC), scale


def to_corners(boxes):
    """Boxes (N, 4) as x, y, width, height -> x1, y1, x2, y2."""
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)


def name_in_image(name, k):
    """The name of class `k`, or its number where the font of `drawing` lacks letters of the name."""
    return shortened(name) if set(map(ord, name)) <= letters() else f"class {k + 1}"


@cache
def letters():
    """Code points that DejaVu Sans has."""
    path = os.path.join(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf")
    return frozenset(FT2Font(path).get_charmap())


def to_jpeg(image):
    """(H, W, 3) uint8, RGB -> bytes of a JPEG file."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=JPEG_QUALITY, optimize=True)
    return buffer.getvalue()
