"""Draws training images as the detector receives them."""

from itertools import chain, count, islice

import numpy as np

from ..config import load_config
from ..data import train_loader
from ..utils.drawing import class_colors, draw_boxes, mosaic

COLUMNS, ROWS = 4, 4
IGNORED = (128, 128, 128)  # color of the regions without loss


def augmented_sheet(config_file, opts):
    """The images of the first training batches of a config, with their boxes: (H, W, 3) uint8, RGB.

    They are augmented, flipped and resized, and random unless SEED is given. Grey boxes are regions without loss.
    Raises InputError as training.
    """
    cfg = load_config(config_file, [*opts, "MODEL.DEVICE", "cpu"])
    loader = train_loader(cfg)
    images = chain.from_iterable(map(loader.batch, count()))
    records = list(islice(images, COLUMNS * ROWS))
    titles = [record["file_name"].replace("\\", "/").rpartition("/")[2] for record in records]
    return mosaic([drawn(record, cfg) for record in records], COLUMNS, titles=titles)


def drawn(record, cfg):
    """The image of a mapped dict with its boxes, (H, W, 3) uint8, RGB."""
    names = cfg.MODEL.ATSS.CLASS_NAMES
    image = record["image"].numpy()[:: -1 if cfg.INPUT.FORMAT == "BGR" else 1].transpose(1, 2, 0)
    objects = record["instances"]
    labels, ignored = objects.gt_classes.tolist(), record.get("ignore_boxes", objects.gt_boxes.tensor[:0])
    boxes = np.concatenate([objects.gt_boxes.tensor, ignored])
    colors = class_colors(len(names))
    return draw_boxes(
        image,
        boxes,
        [*(names[label] for label in labels), *["ignored"] * len(ignored)],
        [*(colors[label] for label in labels), *[IGNORED] * len(ignored)],
    )
