"""Boxes with names on images, and several images as one."""

import math
import os
from functools import cache, lru_cache

import cv2
import matplotlib
import numpy as np
from detectron2.utils.colormap import colormap
from PIL import Image, ImageDraw, ImageFont

# Small images are drawn enlarged to this many pixels, so that the labels do not hide them.
MIN_LONG_SIDE = 640


def class_colors(num_classes):
    """A list of (R, G, B) from 0 to 255, one a class; the 70 of Detectron2's table, again and again."""
    colors = list(dict.fromkeys(map(tuple, colormap(rgb=True).astype(int).tolist())))  # some are in it twice
    return [colors[i % len(colors)] for i in range(num_classes)]


def draw_boxes(image, boxes, labels, colors, min_long_side=MIN_LONG_SIDE):
    """Draw boxes, the first on top, with a label above each.

    Args:
        image: (H, W, 3) uint8, RGB.
        boxes: (D, 4), x1 y1 x2 y2 in pixels of the image.
        labels: list of D texts, "" for none.
        colors: list of D (R, G, B) from 0 to 255.
        min_long_side: a smaller image is enlarged to this many pixels.

    Returns:
        (H', W', 3) uint8, RGB.
    """
    scale = max(1.0, min_long_side / max(image.shape[:2]))
    drawn = np.array(image)
    if scale > 1:
        drawn = cv2.resize(drawn, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    # In a panorama or a strip the short side says how much room there is.
    extent = min(max(drawn.shape[:2]), 2 * min(drawn.shape[:2]))
    line, font_size = max(2, round(extent / 450)), max(13, round(extent / 65))
    height, width = drawn.shape[:2]
    boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 4) * scale
    low = np.floor(boxes[:, :2]).clip(0, [width - 1, height - 1])
    high = np.ceil(boxes[:, 2:]).clip(low + 1, [width, height])
    corners = np.concatenate([low, high], axis=1).astype(int).tolist()
    for (left, top, right, bottom), label, color in reversed(list(zip(corners, labels, colors, strict=True))):
        color = tuple(map(int, color))
        outline(drawn, left, top, right, bottom, line, color)
        if label:
            paste_label(drawn, label_image(label, font_size, color), left, top)
    return drawn


def outline(image, left, top, right, bottom, line, color):
    """Draw the sides of a rectangle of pixels, `line` wide, inside it."""
    x, y = min(line, right - left) - 1, min(line, bottom - top) - 1
    right, bottom = right - 1, bottom - 1  # OpenCV's rectangles have their last pixel
    for corners in (
        ((left, top), (right, top + y)),
        ((left, bottom - y), (right, bottom)),
        ((left, top), (left + x, bottom)),
        ((right - x, top), (right, bottom)),
    ):
        cv2.rectangle(image, *corners, color, cv2.FILLED)


def paste_label(image, label, left, top):
    """Put a label above the pixel (left, top), or below it where the image ends, so that all of it is inside."""
    height, width = label.shape[:2]
    left = max(0, min(left, image.shape[1] - width))
    top = top - height if top >= height else max(0, min(top, image.shape[0] - height))
    place = image[top : top + height, left : left + width]
    place[:] = label[: place.shape[0], : place.shape[1]]


@lru_cache(maxsize=512)  # the frames of a video have the same labels again and again
def label_image(text, size, color):
    """A line of text on a ground of a colour, (h, w, 3) uint8, RGB."""
    left, top, right, bottom = font(size).getbbox(text)
    label = Image.new("RGB", (math.ceil(right - left) + 6, math.ceil(bottom - top) + 6), color)
    dark = 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2] < 140
    ImageDraw.Draw(label).text((3 - left, 3 - top), text, fill="white" if dark else "black", font=font(size))
    return np.asarray(label)


@cache
def font(size):
    """DejaVu Sans, which comes with matplotlib and has the letters of most languages."""
    return ImageFont.truetype(os.path.join(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf"), size)


def mosaic(images, columns, width=420, titles=None):
    """Several images as one, in rows from left to right, on white.

    Args:
        images: list of (H, W, 3) uint8, RGB, of any size.
        columns: number of images a row.
        width: of each in the mosaic, in pixels; they keep their shape, but are at most as high as wide.
        titles: list of a line each above the images, or None.

    Returns:
        (H', W', 3) uint8, RGB.
    """
    gap, head = 8, 24 if titles else 0
    fitted = []
    for image in images:
        height, old_width = image.shape[:2]
        scale = min(width / old_width, width / height)
        new_size = max(1, round(old_width * scale)), max(1, round(height * scale))
        fitted.append(cv2.resize(image, new_size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC))
    rows = [fitted[i : i + columns] for i in range(0, len(fitted), columns)]
    heights = [head + max(image.shape[0] for image in row) for row in rows]
    sheet = np.full((sum(heights) + gap * (len(rows) + 1), columns * (width + gap) + gap, 3), 255, np.uint8)
    place, y = {}, gap
    for r, row in enumerate(rows):
        for c, image in enumerate(row):
            x = gap + c * (width + gap)
            sheet[y + head : y + head + image.shape[0], x : x + image.shape[1]] = image
            place[r * columns + c] = x, y
        y += heights[r] + gap
    if not titles:
        return sheet
    written = Image.fromarray(sheet)
    draw = ImageDraw.Draw(written)
    for i, title in enumerate(titles):
        draw.text(place[i], shortened(title, width, font(15)), fill="black", font=font(15))
    return np.asarray(written)


def shortened(text, width, text_font):
    """A text as it is, or as much of its end as is at most `width` pixels long with "…" before it."""
    if text_font.getlength(text) <= width:
        return text
    while text and text_font.getlength("…" + text) > width:
        text = text[1:]
    return "…" + text
