"""Generated images for demo, study and tests: filled and outlined shapes on textured backgrounds, in COCO format.

The datasets `shapes_train` and `shapes_val` of the demo, and `clutter_train` and `clutter_val` of the study, are drawn
when they are first used, into `shapes/` and `clutter/` under DETECTRON2_DATASETS (`datasets/` where that is not set),
and reused from then on.
"""

import colorsys
import json
import logging
import os
import shutil
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import load_coco_json
from iopath.common.file_io import file_lock
from PIL import Image, ImageDraw

from ..errors import InputError

logger = logging.getLogger(__name__)

CLASSES = ("disc", "ring", "box", "frame", "triangle", "cross")
# Images and seed of each dataset.
SPLITS = {"train": (1200, 1), "val": (150, 2)}
# Raise it when the drawing changes, so that images of an older version are drawn again.
VERSION = 1

MIN_SIDE = 8


class Style(NamedTuple):
    """How images look.

    name: of the dataset.
    sizes: of the images, (width, height) each.
    kinds: of image: (share, least and most objects, (from, to) of the roots of their areas in pixels).
    max_aspect_ratio: of the objects.
    min_visible: an object is drawn only where at least this part of every other stays visible.
    max_iou: by which boxes overlap at most.
    """

    name: str
    sizes: tuple
    kinds: tuple
    max_aspect_ratio: float
    min_visible: float
    max_iou: float


# Of the demo: some images are empty, some crowded.
SHAPES = Style(
    name="shapes",
    sizes=((160, 160), (192, 160), (160, 192)),
    kinds=((0.06, 0, 0, (24, 128)), (0.1, 10, 15, (12, 40)), (0.84, 1, 7, (24, 128))),
    max_aspect_ratio=4,
    min_visible=0.75,
    max_iou=0.2,
)
# Of the study: objects of all sizes, long ones among them, lie over each other, so that it matters which anchors are
# whose.
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
            name, folder = f"{style.name}_{split}", root / split
            annotations = f"{folder}.json"
            DatasetCatalog.register(name, lambda n=name, f=folder, k=number, s=seed, t=style: _load(n, f, k, s, t))
            MetadataCatalog.get(name).set(
                thing_classes=list(CLASSES), json_file=annotations, image_root=str(folder), evaluator_type="coco"
            )


def _load(name, folder, number, seed, style):
    annotations = Path(f"{folder}.json")
    if not _is_current(annotations, number, seed):
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with file_lock(str(folder)):  # of several processes one draws
                if not _is_current(annotations, number, seed):
                    logger.info("Drawing %d images into %s", number, folder)
                    generate(folder, number, seed, style)
        except OSError as error:
            raise InputError(f"{folder}: cannot write the generated images ({error.strerror or error})") from error
    return load_coco_json(str(annotations), str(folder), name)


def _is_current(annotations, number, seed):
    try:
        info = json.loads(annotations.read_text())["info"]
    except (OSError, ValueError, KeyError):
        return False
    return info == _info(number, seed)


def _info(number, seed):
    return {"description": "generated shapes", "version": VERSION, "images": number, "seed": seed}


def generate(folder, number, seed, style=SHAPES):
    """Draw `number` images into `folder` and write their annotations to `folder`.json, last of all.

    The same number and seed give the same images. An interrupted run leaves neither folder nor file.

    Args:
        folder: path of the image folder; what is there goes.
        number: of images.
        seed: int.
        style: `Style`.
    """
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    images, annotations = [], []
    with tempfile.TemporaryDirectory(prefix=folder.name, dir=folder.parent) as draft:
        image_folder = Path(draft) / "images"
        image_folder.mkdir()
        for image_id in range(number):
            image, objects = draw(np.random.default_rng([seed, image_id]), style)
            file_name = f"{image_id:06d}.jpg"
            image.save(image_folder / file_name, quality=95)
            images.append({"id": image_id, "file_name": file_name, "width": image.width, "height": image.height})
            for label, (x1, y1, x2, y2) in objects:
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": image_id,
                        "category_id": label + 1,
                        "bbox": [x1, y1, x2 - x1, y2 - y1],
                        "area": (x2 - x1) * (y2 - y1),
                        "iscrowd": 0,
                    }
                )
        categories = [{"id": label + 1, "name": name} for label, name in enumerate(CLASSES)]
        content = {"info": _info(number, seed), "images": images, "annotations": annotations, "categories": categories}
        written = Path(draft) / "annotations.json"
        written.write_text(json.dumps(content))
        shutil.rmtree(folder, ignore_errors=True)
        image_folder.rename(folder)
        written.rename(f"{folder}.json")


def draw(rng, style=SHAPES):
    """Draw one image.

    Args:
        rng: a numpy random generator.
        style: `Style`.

    Returns:
        a PIL image, and a list of (class, (x1, y1, x2, y2)) in pixels, x2 and y2 exclusive.
    """
    width, height = style.sizes[rng.integers(len(style.sizes))]
    pixels = background(rng, width, height)
    ends, kind = np.cumsum([share for share, *_ in style.kinds]), rng.random()
    _, least, most, sides = style.kinds[int(np.searchsorted(ends[:-1], kind, side="right"))]
    number = int(rng.integers(least, most + 1)) if most else 0
    objects, masks = [], []
    for _ in range(number):
        label = int(rng.integers(len(CLASSES)))
        mask, box = shape_mask(rng, label, width, height, sides, style.max_aspect_ratio)
        if any((other & ~mask).sum() < style.min_visible * full for other, full in masks):
            continue
        if any(iou(box, other) > style.max_iou for _, other in objects):
            continue
        masks = [(other & ~mask, full) for other, full in masks] + [(mask, mask.sum())]
        objects.append((label, box))
        pixels[mask] = color(rng) + rng.normal(0, 6, (int(mask.sum()), 3))
    pixels += rng.normal(0, 4, pixels.shape)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8)), objects


def iou(a, b):
    """IoU of two boxes (x1, y1, x2, y2)."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    intersection = max(0, width) * max(0, height)
    return intersection / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - intersection)


def background(rng, width, height):
    """Texture (height, width, 3), float: pale blotches of two sizes, all of one tint."""
    texture = np.full((height, width), rng.uniform(70, 185))
    for cells, strength in ((3, 25), (24, 12)):
        blotches = Image.fromarray((rng.normal(0, 1, (cells, cells)) * strength).astype(np.float32))
        texture += np.asarray(blotches.resize((width, height), Image.Resampling.BICUBIC))
    return texture[:, :, None] + rng.normal(0, 8, 3)


def color(rng):
    """A vivid colour: red, green and blue."""
    hue, saturation, value = rng.random(), rng.uniform(0.75, 1), rng.uniform(0.6, 1)
    return 255 * np.array(colorsys.hsv_to_rgb(hue, saturation, value))


def shape_mask(rng, label, width, height, sides, max_aspect_ratio):
    """A shape of a class at a random place: its (height, width) mask, and its box as (x1, y1, x2, y2).

    The root of its area is drawn log-uniformly between the two `sides`, and so is its aspect ratio, up to
    `max_aspect_ratio` either way; no side is below MIN_SIDE or beyond the image.
    """
    side = np.exp(rng.uniform(*np.log(sides)))
    root = np.exp(rng.uniform(-0.5, 0.5) * np.log(max_aspect_ratio))
    w, h = (int(np.clip(round(s), MIN_SIDE, limit)) for s, limit in ((side * root, width), (side / root, height)))
    x, y = int(rng.integers(0, width - w + 1)), int(rng.integers(0, height - h + 1))
    canvas = Image.new("1", (width, height))
    pen = ImageDraw.Draw(canvas)
    corners = (x, y, x + w - 1, y + h - 1)
    line = max(2, round(0.14 * min(w, h)))
    name = CLASSES[label]
    if name == "disc":
        pen.ellipse(corners, fill=1)
    elif name == "ring":
        pen.ellipse(corners, outline=1, width=line)
    elif name == "box":
        pen.rectangle(corners, fill=1)
    elif name == "frame":
        pen.rectangle(corners, outline=1, width=line)
    elif name == "triangle":
        pen.polygon([(x + (w - 1) / 2, y), (x + w - 1, y + h - 1), (x, y + h - 1)], fill=1)
    else:
        pen.rectangle((x + w // 2 - w // 6, y, x + (w - 1) // 2 + w // 6, y + h - 1), fill=1)
        pen.rectangle((x, y + h // 2 - h // 6, x + w - 1, y + (h - 1) // 2 + h // 6), fill=1)
    mask = np.array(canvas)
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return mask, (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
