"""Boxes with names on pictures, and several pictures as one."""

import math
import os
from functools import cache

import cv2
import matplotlib
import numpy as np
from detectron2.utils.colormap import colormap
from PIL import Image, ImageDraw, ImageFont

# Small pictures are drawn enlarged to this many pixels, so that the labels do not hide them.
MIN_LONG_SIDE = 640


def class_colors(num_classes):
    """A list of (R, G, B) from 0 to 255, one a class, as far apart as Detectron2's table has them."""
    colors = [tuple(color) for color in colormap(rgb=True).astype(int).tolist()]
    return [colors[i % len(colors)] for i in range(num_classes)]


def draw_boxes(picture, boxes, labels, colors, min_long_side=MIN_LONG_SIDE):
    """Draw boxes, the first on top, with a label above each.

    Args:
        picture: (H, W, 3) uint8, RGB.
        boxes: (D, 4), x1 y1 x2 y2 in pixels of the picture.
        labels: list of D texts, "" for none.
        colors: list of D (R, G, B) from 0 to 255.
        min_long_side: a smaller picture is enlarged to this many pixels.

    Returns:
        (H', W', 3) uint8, RGB.
    """
    scale = max(1.0, min_long_side / max(picture.shape[:2]))
    if scale > 1:
        picture = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    drawn = Image.fromarray(picture)
    draw = ImageDraw.Draw(drawn)
    line = max(2, round(max(drawn.size) / 450))
    text_font = font(max(13, round(max(drawn.size) / 65)))
    boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 4) * scale
    for (x1, y1, x2, y2), label, color in reversed(list(zip(boxes.tolist(), labels, colors, strict=True))):
        draw.rectangle([x1, y1, max(x1, x2 - 1), max(y1, y2 - 1)], outline=color, width=line)
        if label:
            write(draw, label, x1, y1, text_font, color, drawn.size)
    return np.asarray(drawn)


def write(draw, label, x, y, text_font, color, size):
    """A label on a ground of `color`: above the point (x, y), or below it where the picture ends, all of it inside."""
    left, top, right, bottom = text_font.getbbox(label)
    width, height = right - left + 6, bottom - top + 6
    x = max(0, min(x, size[0] - width))
    y = y - height if y >= height else y
    draw.rectangle([x, y, x + width - 1, y + height - 1], fill=color)
    dark = 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2] < 140
    draw.text((x + 3 - left, y + 3 - top), label, fill="white" if dark else "black", font=text_font)


@cache
def font(size):
    """DejaVu Sans, which comes with matplotlib and has the letters of most languages."""
    return ImageFont.truetype(os.path.join(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf"), size)


def mosaic(pictures, columns, width=420, titles=None):
    """Several pictures as one, in rows from left to right, on white.

    Args:
        pictures: list of (H, W, 3) uint8, RGB, of any size.
        columns: number of pictures a row.
        width: of each in the mosaic, in pixels; they keep their shape, but are at most as high as wide.
        titles: list of a line each above the pictures, or None.

    Returns:
        (H', W', 3) uint8, RGB.
    """
    gap, head = 8, 24 if titles else 0
    fitted = []
    for picture in pictures:
        height, old_width = picture.shape[:2]
        scale = min(width / old_width, width / height)
        new_size = max(1, round(old_width * scale)), max(1, round(height * scale))
        fitted.append(cv2.resize(picture, new_size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC))
    rows = [fitted[i : i + columns] for i in range(0, len(fitted), columns)]
    heights = [head + max(picture.shape[0] for picture in row) for row in rows]
    sheet = np.full((sum(heights) + gap * (len(rows) + 1), columns * (width + gap) + gap, 3), 255, np.uint8)
    place, y = {}, gap
    for r, row in enumerate(rows):
        for c, picture in enumerate(row):
            x = gap + c * (width + gap)
            sheet[y + head : y + head + picture.shape[0], x : x + picture.shape[1]] = picture
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
    """As much of the end of a text as is at most `width` pixels long."""
    if text_font.getlength(text) <= width:
        return text
    letters = math.floor(len(text) * width / text_font.getlength(text))
    return "…" + text[len(text) - max(0, letters - 1) :]
