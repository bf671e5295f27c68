"""Generated images for demo, study and tests: filled and outlined shapes on textured backgrounds, in COCO format.

The datasets `shapes_train` and `shapes_val` of the demo, and `clutter_train` and `clutter_val` of the study, are drawn
when they are first used, into `shapes/` and `clutter/` under DETECTRON2_DATASETS (`datasets/` if that is not set), and
reused from then on.
"""

import colorsys
import json
import logging
import os
import shutil
import tempfile
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from detectron2.data import MetadataCatalog
from iopath.common.file_io import file_lock
from PIL import Image, ImageDraw

from ..errors import InputError
from .catalog import register
from .coco import read_json
from .sources import Content, Source, coco_content

logger = logging.getLogger(__name__)

CLASSES = ("disc", "ring", "box", "frame", "triangle", "cross")
# Number of images and seed of each split.
SPLITS = {"train": (1200, 1), "val": (150, 2)}
# Increase when the drawing changes, so that images of an older version are drawn again.
VERSION = 1
# Of objects, in pixels.
MIN_SIDE = 8


class Style(NamedTuple):
    """How to draw images."""

    name: str  # of the dataset
    sizes: tuple  # (width, height) of the images, in pixels; all are equally likely
    kinds: tuple  # of images: share, minimum and maximum number of objects, range of the square roots of their areas
    max_aspect_ratio: float  # of an object
    min_visible: float  # fraction of an object that later objects leave visible
    max_iou: float  # of two boxes


# For the demo: some images are empty, some crowded.
SHAPES = Style(
    name="shapes",
    sizes=((160, 160), (192, 160), (160, 192)),
    kinds=((0.06, 0, 0, (24, 128)), (0.1, 10, 15, (12, 40)), (0.84, 1, 7, (24, 128))),
    max_aspect_ratio=4,
    min_visible=0.75,
    max_iou=0.2,
)
# For the study: objects of all sizes and aspect ratios overlap, so that label assignment matters.
CLUTTER = Style(
    name="clutter",
    sizes=((128, 128),),
    kinds=((1.0, 4, 10, (10, 96)),),
    max_aspect_ratio=6,
    min_visible=0.5,
    max_iou=0.5,
)


def register_shapes():
    """Register the training and validation sets of both styles; nothing is drawn yet."""
    for style in (SHAPES, CLUTTER):
        root = Path(os.getenv("DETECTRON2_DATASETS", "datasets")) / style.name
        for split, (number, seed) in SPLITS.items():
            name, folder, file = f"{style.name}_{split}", root / split, f"{root / split}.json"
            register(name, Source(file, partial(read, folder, number, seed, style)))
            MetadataCatalog.get(name).set(thing_classes=list(CLASSES), json_file=file, image_root=str(folder))


def read(folder, number, seed, style):
    """`Content` of generated images, which are drawn if they are not there yet; arguments as for `generate`."""
    if not _is_current(folder, number, seed):
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with file_lock(str(folder)):  # one of several processes draws
                if not _is_current(folder, number, seed):
                    logger.info("Drawing %d images into %s", number, folder)
                    generate(folder, number, seed, style)
        except OSError as error:
            raise InputError(f"{folder}: cannot write the generated images ({error.strerror or error})") from error
    return Content(read_json(f"{folder}.json"), str(folder), [], f"{folder}.json")


def _is_current(folder, number, seed):
    try:
        return read_json(f"{folder}.json")["info"] == _info(number, seed)
    except (InputError, KeyError, TypeError):
        return False


def _info(number, seed):
    return {"description": "generated shapes", "version": VERSION, "images": number, "seed": seed}


def generate(folder, number, seed, style=SHAPES):
    """Draw `number` images into `folder`, which is replaced, and then write their annotations to `folder`.json.

    The same number and seed give the same images. An interrupted run leaves neither folder nor file.
    """
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    images = []
    with tempfile.TemporaryDirectory(prefix=folder.name, dir=folder.parent) as draft:
        image_folder, annotations = Path(draft) / "images", Path(draft) / "annotations.json"
        image_folder.mkdir()
        for image_id in range(number):
            image, objects = draw(np.random.default_rng([seed, image_id]), style)
            file_name = f"{image_id:06d}.jpg"
            image.save(image_folder / file_name, quality=95)
            boxes = [(label + 1, [x1, y1, x2 - x1, y2 - y1], None) for label, (x1, y1, x2, y2) in objects]
            images.append((file_name, image.width, image.height, boxes))
        coco = coco_content(dict(enumerate(CLASSES, 1)), images)
        annotations.write_text(json.dumps({"info": _info(number, seed), **coco}))
        shutil.rmtree(folder, ignore_errors=True)
        image_folder.rename(folder)
        annotations.rename(f"{folder}.json")


def draw(rng, style=SHAPES):
    """Draw one image with a numpy random generator.

    Returns a PIL image, and a list of (class, (x1, y1, x2, y2)) in pixels, x2 and y2 exclusive.
    """
    width, height = style.sizes[rng.integers(len(style.sizes))]
    pixels = background(rng, width, height)
    ends, kind = np.cumsum([share for share, *_ in style.kinds]), rng.random()
    _, least, most, sides = style.kinds[int(np.searchsorted(ends[:-1], kind, side="right"))]
    number = int(rng.integers(least, most + 1)) if most else 0
    objects, masks = [], []  # a mask has the visible pixels of an object, within its box
    for _ in range(number):
        label = int(rng.integers(len(CLASSES)))
        box, mask = shape_mask(rng, label, width, height, sides, style.max_aspect_ratio)
        shared = [(seen[window(box, *other[:2])], mask[window(other, *box[:2])]) for other, seen, _ in masks]
        is_hiding = any(
            seen.sum() - (part & new).sum() < style.min_visible * full
            for (_, seen, full), (part, new) in zip(masks, shared, strict=True)
        )
        if is_hiding or any(iou(box, other) > style.max_iou for _, other in objects):
            continue
        for part, new in shared:
            part &= ~new
        masks.append((box, mask.copy(), mask.sum()))
        objects.append((label, box))
        hue, saturation, value = rng.random(), rng.uniform(0.75, 1), rng.uniform(0.6, 1)
        color = 255 * np.array(colorsys.hsv_to_rgb(hue, saturation, value))
        pixels[window(box)][mask] = color + rng.normal(0, 6, (int(mask.sum()), 3))
    pixels += rng.normal(0, 4, pixels.shape)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8)), objects


def window(box, left=0, top=0):
    """Slices of the rows and columns of a box (x1, y1, x2, y2) in an array whose first pixel is at `left`, `top`."""
    x1, y1, x2, y2 = box
    return slice(max(y1 - top, 0), max(y2 - top, 0)), slice(max(x1 - left, 0), max(x2 - left, 0))


def iou(a, b):
    """IoU of two boxes (x1, y1, x2, y2)."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    intersection = max(0, width) * max(0, height)
    return intersection / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - intersection)


def background(rng, width, height):
    """Texture (height, width, 3), float: pale blotches of two sizes in one tint."""
    texture = np.full((height, width), rng.uniform(70, 185))
    for cells, strength in ((3, 25), (24, 12)):
        blotches = Image.fromarray((rng.normal(0, 1, (cells, cells)) * strength).astype(np.float32))
        texture += np.asarray(blotches.resize((width, height), Image.Resampling.BICUBIC))
    return texture[:, :, None] + rng.normal(0, 8, 3)


def shape_mask(rng, label, width, height, sides, max_aspect_ratio):
    """A shape of a class at a random position: its box (x1, y1, x2, y2), exclusive, and its mask, bool, in the box.

    The square root of its area is drawn log-uniformly from the range `sides`, its aspect ratio log-uniformly up to
    `max_aspect_ratio` in either direction. Both sides are at least MIN_SIDE and at most those of the image.
    """
    side = np.exp(rng.uniform(*np.log(sides)))
    root = np.exp(rng.uniform(-0.5, 0.5) * np.log(max_aspect_ratio))
    w, h = (int(np.clip(round(s), MIN_SIDE, limit)) for s, limit in ((side * root, width), (side / root, height)))
    x, y = int(rng.integers(0, width - w + 1)), int(rng.integers(0, height - h + 1))
    canvas = Image.new("1", (x + w, y + h))
    pen = ImageDraw.Draw(canvas)
    corners = (x, y, x + w - 1, y + h - 1)
    name, outline = CLASSES[label], {"outline": 1, "width": max(2, round(0.14 * min(w, h)))}
    how = outline if name in ("ring", "frame") else {"fill": 1}
    if name in ("disc", "ring"):
        pen.ellipse(corners, **how)
    elif name in ("box", "frame"):
        pen.rectangle(corners, **how)
    elif name == "triangle":
        pen.polygon([(x + (w - 1) / 2, y), (x + w - 1, y + h - 1), (x, y + h - 1)], fill=1)
    else:
        pen.rectangle((x + w // 2 - w // 6, y, x + (w - 1) // 2 + w // 6, y + h - 1), fill=1)
        pen.rectangle((x, y + h // 2 - h // 6, x + w - 1, y + (h - 1) // 2 + h // 6), fill=1)
    mask = np.array(canvas.crop((x, y, x + w, y + h)))
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    box = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
    return (x + box[0], y + box[1], x + box[2], y + box[3]), mask[window(box)]
