#!/usr/bin/env python
"""Detect objects in images with model.onnx. Needs onnxruntime, numpy and Pillow:

    pip install onnxruntime numpy pillow
    python example.py image.jpg more/*.jpg --output drawn/

Prints one line per object: file, class, score, and its box, x1 y1 x2 y2 in pixels of the image. With onnxruntime-gpu it
runs on a CUDA GPU.
"""

import argparse
import colorsys
import contextlib
import json
import os
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageDraw, ImageFont, ImageOps

FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "GIF", "PPM")  # that are opened, whatever a file is called


class Detector:
    """A model from an ONNX file, whose metadata says how to prepare images; `threads` 0 takes all CPU cores."""

    def __init__(self, path, threads=0):
        available = onnxruntime.get_available_providers()
        providers = [p for p in ("CUDAExecutionProvider", "CPUExecutionProvider") if p in available]
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self.session = onnxruntime.InferenceSession(path, options, providers=providers)
        self.settings = dict(self.session.get_modelmeta().custom_metadata_map)
        for name in self.settings.keys() - {"input_format", "resize_like"}:
            self.settings[name] = json.loads(self.settings[name])

    def __call__(self, image):
        """Detect objects in an image, (H, W, 3) uint8 in RGB order: `self.batch([image])[0]`."""
        return self.batch([image])[0]

    def batch(self, images):
        """Detect objects in several images at once, preferably of one size.

        For each image: boxes (D, 4) float32 in its pixels, scores (D,) float32 and classes (D,) int64, best first.
        """
        resized = [self.resize(image) for image in images]
        sizes = np.array([image.shape[:2] for image in resized])
        batch = np.zeros((len(images), 3, *sizes.max(0)), np.uint8)
        for place, image, (height, width) in zip(batch, resized, sizes, strict=True):
            channels = image[:, :, ::-1] if self.settings["input_format"] == "BGR" else image
            place[:, :height, :width] = channels.transpose(2, 0, 1)
        detections = []
        outputs = self.session.run(("boxes", "scores", "classes"), {"images": batch, "sizes": sizes})
        for boxes, scores, classes, size, image in zip(*outputs, sizes, images, strict=True):
            kept = np.flatnonzero(scores > 0)
            if not self.settings["suppressed"]:
                kept = kept[suppress(boxes[kept], scores[kept], classes[kept], self.settings["nms_threshold"])]
                kept = kept[: self.settings["max_detections"]]
            boxes = self.in_original(boxes[kept], size, image.shape[:2])
            detections.append((boxes, scores[kept], classes[kept]))
        return detections

    def resize(self, image):
        """The image at the size that the model was trained for."""
        height, width = new_size(*image.shape[:2], self.settings)
        if self.settings["resize_like"] == "mmdetection":
            import cv2  # these models need OpenCV's interpolation

            return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
        return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))

    def in_original(self, boxes, size, original_size):
        """Boxes (D, 4) of the resized image in pixels of the original one; sizes are (height, width)."""
        new, old = np.float32([*original_size[::-1]] * 2), np.float32([*size[::-1]] * 2)
        ends = np.float32([0, 0, 1, 1]) * self.settings["pixel_extent"]
        return (boxes - ends) * new / old + ends


def new_size(height, width, settings):
    """Height and width after resizing: the short side `min_size`, but the long side at most `max_size`."""
    size, limit = settings["min_size"], settings["max_size"]
    if size == 0:
        return height, width
    short, long = sorted((height, width))
    if settings["resize_like"] == "maskrcnn-benchmark":
        if long / short * size > limit:
            size = max(1, round(limit * short / long))
        sides = (int(size * height / width), size) if width < height else (size, int(size * width / height))
    else:
        scale = size * 1.0 / short
        sides = (size, scale * width) if height < width else (scale * height, size)
        scale = limit * 1.0 / max(sides) if max(sides) > limit else 1.0
        sides = (int(sides[0] * scale + 0.5), int(sides[1] * scale + 0.5))
    return max(1, sides[0]), max(1, sides[1])


def suppress(boxes, scores, classes, threshold):
    """Non-maximum suppression per class: indices of the boxes (B, 4) to keep, best first."""
    order = np.argsort(-scores, kind="stable")
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    kept = []
    while len(order):
        first, rest = order[0], order[1:]
        kept.append(first)
        sides = np.minimum(boxes[first, 2:], boxes[rest, 2:]) - np.maximum(boxes[first, :2], boxes[rest, :2])
        shared = sides.clip(0).prod(1)
        iou = shared / (areas[first] + areas[rest] - shared)
        order = rest[(iou <= threshold) | (classes[rest] != classes[first])]
    return np.array(kept, np.int64)


def read(path):
    """An image file, by its path or opened, as (H, W, 3) uint8 in RGB order: upright, on white if transparent."""
    with Image.open(path, formats=FORMATS) as image:
        with contextlib.suppress(Exception):  # damaged EXIF data
            image = ImageOps.exif_transpose(image)
        if image.mode.startswith("I"):  # 16-bit grey
            image = Image.fromarray((np.asarray(image) // 257).astype(np.uint8))
        if image.has_transparency_data:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        return np.array(image.convert("RGB"))


def draw(image, boxes, texts, classes):
    """The image as a Pillow image, with boxes and texts drawn."""
    drawn = Image.fromarray(image)
    pen, size = ImageDraw.Draw(drawn), max(drawn.size)
    font, line = ImageFont.load_default(max(10, size // 50)), max(1, size // 400)
    for box, text, label in zip(boxes.tolist(), texts, classes.tolist(), strict=True):
        color = tuple(int(255 * x) for x in colorsys.hsv_to_rgb(label * 0.618 % 1, 0.9, 0.9))
        pen.rectangle(box, outline=color, width=line)
        place = pen.textbbox(box[:2], text, font=font)
        pen.rectangle(place, fill=color)
        pen.text(box[:2], text, fill="white", font=font)
    return drawn


def main():
    folder = os.path.dirname(os.path.abspath(__file__))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", nargs="+", metavar="IMAGE")
    parser.add_argument("--model", default=os.path.join(folder, "model.onnx"), metavar="FILE")
    parser.add_argument("--threshold", type=float, default=0.5, help="minimum score of an object")
    parser.add_argument("--output", metavar="DIR", help="folder for images with the boxes drawn")
    args = parser.parse_args()

    detector = Detector(args.model)
    for path in args.images:
        try:
            image = read(path)
        except (OSError, ValueError) as error:
            sys.exit(f"error: {path}: cannot read this image ({error})")
        found = detector(image)
        boxes, scores, classes = (values[found[1] >= args.threshold] for values in found)
        names = [detector.settings["class_names"][label] for label in classes]
        for name, score, box in zip(names, scores, boxes, strict=True):
            print(path, name, f"{score:.3f}", *(f"{side:.1f}" for side in box), sep="\t")
        if args.output:
            os.makedirs(args.output, exist_ok=True)
            texts = [f"{name} {score:.0%}" for name, score in zip(names, scores, strict=True)]
            name = os.path.splitext(os.path.basename(path))[0] + ".png"
            draw(image, boxes, texts, classes).save(os.path.join(args.output, name))


if __name__ == "__main__":
    main()
