"""Draw boxes with labels on images; arrange images in a grid."""

import math
import os
from functools import cache, lru_cache

import cv2
import matplotlib
import numpy as np
from detectron2.utils.colormap import colormap
from PIL import Image, ImageDraw, ImageFont

# Images are enlarged to at least this long side, in pixels, so that labels do not cover them.
MIN_LONG_SIDE = 640


def class_colors(num_classes):
    """A list of (R, G, B) from 0 to 255, one per class: the 70 colors of Detectron2's table, repeated as needed."""
    colors = list(dict.fromkeys(map(tuple, colormap(rgb=True).astype(int).tolist())))  # the table has duplicates
    return [colors[i % len(colors)] for i in range(num_classes)]


def draw_boxes(image, boxes, labels, colors, min_long_side=MIN_LONG_SIDE):
    """Draw boxes with labels; the first box and the first label are on top.

    Args:
        image: (H, W, 3) uint8, RGB.
        boxes: (D, 4), x1 y1 x2 y2 in pixels of the image.
        labels: list of D strings, "" for no label.
        colors: list of D (R, G, B) from 0 to 255.
        min_long_side: long side to which a smaller image is enlarged, in pixels.

    Returns:
        (H', W', 3) uint8, RGB.
    """
    scale = max(1.0, min_long_side / max(image.shape[:2]))
    drawn = np.array(image)
    if scale > 1:
        drawn = cv2.resize(drawn, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    height, width = drawn.shape[:2]
    # Lines and text grow with the image; in an elongated one the short side limits them.
    extent = min(max(height, width), 2 * min(height, width))
    line, font_size = max(2, round(extent / 450)), max(13, round(extent / 65))

    boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 4) * scale
    low = np.floor(boxes[:, :2]).clip(0, [width - 1, height - 1])
    high = np.ceil(boxes[:, 2:]).clip(low + 1, [width, height])
    corners = np.concatenate([low, high], axis=1).astype(int).tolist()
    placed = []
    for (left, top, _, bottom), text, color in zip(corners, labels, colors, strict=True):
        if text:
            label = label_image(text, font_size, tuple(map(int, color)))
            placed.append((label, *label_corner(label, left, top, bottom, (height, width), placed)))
    for (left, top, right, bottom), color in reversed(list(zip(corners, colors, strict=True))):
        box = drawn[top:bottom, left:right]
        box[:line] = box[-line:] = box[:, :line] = box[:, -line:] = color
    for label, x, y in reversed(placed):
        area = drawn[y : y + label.shape[0], x : x + label.shape[1]]
        area[:] = label[: area.shape[0], : area.shape[1]]
    return drawn


def label_corner(label, left, top, bottom, size, placed):
    """Position (x, y) of a label: above its box, inside at the top, below it, or inside at the bottom.

    Return the first of these inside the image that overlaps no label in `placed`, or else the first inside the image.
    """
    label_height, label_width = label.shape[:2]
    height, width = size
    x = max(0, min(left, width - label_width))
    rows = [top - label_height, top, bottom, bottom - label_height]
    rows = [y for y in rows if 0 <= y <= height - label_height] or [max(0, height - label_height)]
    # The rows of other labels in the columns of this one.
    taken = [(v, v + other.shape[0]) for other, u, v in placed if u < x + label_width and x < u + other.shape[1]]
    free = (y for y in rows if not any(y < end and start < y + label_height for start, end in taken))
    return x, next(free, rows[0])


@lru_cache(maxsize=512)  # the frames of a video repeat their labels
def label_image(text, size, color):
    """Render a line of text on a colored background: (h, w, 3) uint8, RGB."""
    left, top, right, bottom = font(size).getbbox(text)
    label = Image.new("RGB", (math.ceil(right - left) + 6, math.ceil(bottom - top) + 6), color)
    is_dark = 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2] < 140
    ImageDraw.Draw(label).text((3 - left, 3 - top), text, fill="white" if is_dark else "black", font=font(size))
    return np.asarray(label)


@cache
def font(size):
    """DejaVu Sans, which matplotlib includes and which covers most alphabets."""
    return ImageFont.truetype(os.path.join(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf"), size)


def mosaic(images, columns, width=420, titles=None):
    """Arrange images in a grid, row by row, on white.

    Args:
        images: list of (H, W, 3) uint8, RGB, of any size.
        columns: number of images per row.
        width: long side of each image in the grid, in pixels; the aspect ratio is kept.
        titles: one line of text per image, drawn above it, or None.

    Returns:
        (H', W', 3) uint8, RGB.
    """
    gap, title_height = 8, 24 if titles else 0
    tiles = []
    for image in images:
        scale = width / max(image.shape[:2])
        size = [max(1, round(side * scale)) for side in image.shape[1::-1]]
        tiles.append(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))
    rows = [tiles[i : i + columns] for i in range(0, len(tiles), columns)]
    heights = [title_height + max(tile.height for tile in row) + gap for row in rows]
    grid = Image.new("RGB", (columns * (width + gap) + gap, sum(heights) + gap), "white")
    for i, tile in enumerate(tiles):
        row, column = divmod(i, columns)
        x, y = gap + column * (width + gap), gap + sum(heights[:row])
        grid.paste(tile, (x, y + title_height))
        if titles:
            ImageDraw.Draw(grid).text((x, y), shortened(titles[i], width, font(15)), fill="black", font=font(15))
    return np.asarray(grid)


def shortened(text, width, text_font):
    """Cut the beginning of the text, marked by "…", to fit `width` pixels."""
    short = text
    while text and text_font.getlength(short) > width:
        text = text[1:]
        short = f"…{text}"
    return short
