"""Photos of a report: ground truth beside detections, and errors with their surroundings."""

import cv2
import numpy as np
from matplotlib.font_manager import get_font

from ..data.image_io import read_image
from ..utils.drawing import class_colors, draw_boxes, font
from .theme import shortened

IMAGE, CROP = 400, 340  # longer side of images and of crops, in pixels
# A crop shows this much on each side of a box, times its longer side, and is at least so wide in pixels of the image.
AROUND, LEAST_CROP = 0.6, 64
CROP_SHAPE = 4 / 3
NAMED_BOXES = 15  # with more boxes, names would hide the image
# Colours in crops: of ground truth, of a detection, and around both.
LABEL, PREDICTION, EDGE = (64, 224, 160), (255, 140, 40), (20, 20, 20)


def spread(boxes, number):
    """Choose images with ground truth or detections, evenly spread over the dataset: increasing indices (n,)."""
    images = np.union1d(boxes.objects["image"], boxes.detections["image"])
    return images[np.unique(np.linspace(0, len(images) - 1, min(number, len(images))).round().astype(int))]


def draw_pair(dataset, objects, detections, index):
    """Draw an image with its ground truth, then with its detections, the best on top, in the colours of their classes.

    Yields two (H, W, 3) uint8, RGB; raises an InputError if the image is missing or cannot be read.
    """
    image = read_image(dataset.files[index], format="RGB")
    scale = IMAGE / max(image.shape[:2])
    image = resized(image, scale)
    colors = class_colors(len(dataset.classes))
    detections = detections[np.argsort(-detections["score"], kind="stable")]
    named = max(len(objects), len(detections)) <= NAMED_BOXES
    for rows in (objects, detections):
        labels = [label_of(dataset, row) if named else "" for row in rows]
        shades = [colors[k] for k in rows["category"]]
        yield draw_boxes(image, to_corners(rows["box"]) * scale, labels, shades, min_long_side=0)


def label_of(dataset, row):
    """Return the label of a ground-truth box or detection in an image."""
    name = name_in_image(dataset.classes[row["category"]], row["category"])
    if "score" in row.dtype.names:
        return f"{name} {row['score']:.2f}"
    return f"{name} (crowd)" if row["crowd"] else name


def draw_error(dataset, boxes, detection, object_):
    """Draw the part of an image around a detection, a ground-truth box or both, given as indices, -1 for none.

    Returns the path of the image, and (H, W, 3) uint8, RGB; raises an InputError if the image is missing or cannot be
    read.
    """
    shown = [(boxes.detections[detection], PREDICTION)] if detection >= 0 else []
    shown += [(boxes.objects[object_], LABEL)] if object_ >= 0 else []
    rows, colors = zip(*shown, strict=True)
    path = dataset.files[rows[0]["image"]]
    image = read_image(path, format="RGB")
    corners = to_corners(np.array([row["box"] for row in rows]))
    x1, y1, x2, y2 = window(corners, image.shape[1], image.shape[0])
    scale = CROP / max(x2 - x1, y2 - y1)
    corners = (corners - [x1, y1, x1, y1]) * scale
    # A dark edge around each box keeps it visible on backgrounds of its colour.
    corners = np.concatenate([corners, corners + np.array([-1, -1, 1, 1])])
    # Only the first box has a label: that of the other would lie under it.
    labels = [label_of(dataset, rows[0])] + [""] * (len(corners) - 1)
    colors = [*colors, *[EDGE] * len(colors)]
    return path, draw_boxes(resized(image[y1:y2, x1:x2], scale), corners, labels, colors, min_long_side=0)


def window(corners, width, height):
    """Choose the part of an image that shows boxes (N, 4): integers x1, y1, x2, y2, at least a pixel wide and high.

    It has CROP_SHAPE and lies inside the image, as far as the image is large enough.
    """
    low, high = corners[:, :2].min(axis=0), corners[:, 2:].max(axis=0)
    low, high = (np.clip(ends, 0, [width, height]) for ends in (low, high))
    wide, tall = high - low + 2 * AROUND * (high - low).max()
    wide, tall = max(wide, tall * CROP_SHAPE, LEAST_CROP), max(tall, wide / CROP_SHAPE, LEAST_CROP / CROP_SHAPE)
    sides = np.minimum(np.ceil([wide, tall]), [width, height]).astype(int)
    start = np.clip(np.round((low + high - sides) / 2).astype(int), 0, [width, height] - sides)
    return *start.tolist(), *(start + sides).tolist()


def resized(image, scale):
    size = [max(1, round(side * scale)) for side in image.shape[1::-1]]
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)


def to_corners(boxes):
    """Boxes (N, 4) as x, y, width, height -> x1, y1, x2, y2."""
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)


def name_in_image(name, k):
    """Return the name of class `k`, or its number where the font of `drawing` lacks letters of the name."""
    glyph = get_font(font(1).path).get_char_index
    return shortened(name) if all(glyph(ord(letter)) for letter in name) else f"class {k + 1}"
