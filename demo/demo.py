#!/usr/bin/env python
"""Draw what a trained detector finds in pictures."""

import argparse
import glob
import logging
import os
import sys

import atss  # noqa: F401  (before Detectron2, whose deprecation warnings it silences)

# isort: split
import cv2
import numpy as np
import tqdm
from detectron2.data.catalog import Metadata
from detectron2.data.detection_utils import read_image
from detectron2.structures import Boxes, Instances
from detectron2.utils.colormap import colormap
from detectron2.utils.logger import setup_logger
from detectron2.utils.visualizer import ColorMode, Visualizer

from atss.errors import InputError, first_line, one_line_errors
from atss.predictor import Predictor
from atss.run import load_config

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
WINDOW = "ATSS"
# Small pictures are drawn enlarged to this many pixels, so that the labels do not hide them.
MIN_LONG_SIDE = 640

logger = logging.getLogger("atss.demo")


def get_parser():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config-file", required=True, metavar="FILE", help="path to config file")
    parser.add_argument("--input", nargs="+", required=True, help="pictures, folders of pictures, or glob patterns")
    parser.add_argument("--output", help="file or folder for the drawn pictures; a window opens where it is not given")
    parser.add_argument("--confidence-threshold", type=float, default=0.5, help="least score of a box to be drawn")
    parser.add_argument(
        "--opts", nargs=argparse.REMAINDER, default=[], help="config keys and values, such as MODEL.WEIGHTS model.pth"
    )
    return parser


def main(args):
    setup_logger(name="atss")
    pictures = find_pictures(args.input)
    outputs = output_paths(pictures, args.output) if args.output else [None] * len(pictures)
    if not args.output and sys.platform == "linux" and not {"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys():
        raise InputError("there is no screen to open a window on: name a file or folder with --output")
    cfg = load_config(args.config_file, args.opts, read_datasets=False)
    predictor = Predictor(cfg)
    unreadable = 0
    for path, output in zip(tqdm.tqdm(pictures, disable=not args.output), outputs, strict=True):
        try:
            picture = read_image(path, format="BGR")
        except Exception as error:  # whatever a damaged picture makes its decoder raise
            logger.error("%s: the picture cannot be read (%s)", path, first_line(error))
            unreadable += 1
            continue
        instances = predictor(picture)
        instances = instances[instances.scores >= args.confidence_threshold]
        drawn = draw(picture, instances, cfg.MODEL.ATSS.CLASS_NAMES)
        if output:
            os.makedirs(os.path.dirname(output) or ".", exist_ok=True)
            cv2.imwrite(output, drawn)
        elif not show(drawn):
            break
    if unreadable:
        raise InputError(f"{unreadable} of {len(pictures)} pictures could not be read; they are named above")


def find_pictures(inputs):
    """Paths of the pictures that files, folders and glob patterns name, in order."""
    pictures = []
    for name in inputs:
        name = os.path.expanduser(name)
        if os.path.isdir(name):
            found = sorted(os.path.join(name, f) for f in os.listdir(name) if f.lower().endswith(EXTENSIONS))
            if not found:
                raise InputError(f"--input {name}: no picture in this folder")
        else:
            found = [name] if os.path.isfile(name) else sorted(glob.glob(name))
            if not found:
                raise InputError(f"--input {name}: no such picture")
        pictures += found
    return pictures


def output_paths(pictures, output):
    """Where each drawn picture goes: to `output` itself if that is a picture's name, else into it, as a folder."""
    if output.lower().endswith(EXTENSIONS) and not os.path.isdir(output):
        if len(pictures) > 1:
            raise InputError(f"--output {output}: {len(pictures)} pictures need a folder, not a file")
        return [output]
    paths, used = [], set()
    for picture in pictures:
        stem = os.path.splitext(os.path.basename(picture))[0]
        name, number = stem, 1
        while name in used:
            number += 1
            name = f"{stem}_{number}"
        used.add(name)
        paths.append(os.path.join(output, name + ".png"))
    return paths


def draw(picture, instances, class_names):
    """Picture (H, W, 3), BGR, with boxes, class names and scores; enlarged if it is small."""
    colors = colormap(rgb=True).astype(int).tolist()
    metadata = Metadata(
        thing_classes=class_names, thing_colors=[colors[i % len(colors)] for i in range(len(class_names))]
    )
    scale = max(1.0, MIN_LONG_SIDE / max(picture.shape[:2]))
    picture = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR)
    boxes = Boxes(instances.pred_boxes.tensor * scale)
    enlarged = Instances(
        picture.shape[:2], pred_boxes=boxes, scores=instances.scores, pred_classes=instances.pred_classes
    )
    visualizer = Visualizer(picture[:, :, ::-1], metadata, instance_mode=ColorMode.SEGMENTATION)
    return np.ascontiguousarray(visualizer.draw_instance_predictions(enlarged).get_image()[:, :, ::-1])


def show(picture):
    """Show a picture until a key is pressed; False if that was Escape."""
    cv2.namedWindow(WINDOW, cv2.WINDOW_NORMAL)
    cv2.imshow(WINDOW, picture)
    return cv2.waitKey(0) != 27


if __name__ == "__main__":
    with one_line_errors():
        main(get_parser().parse_args())
