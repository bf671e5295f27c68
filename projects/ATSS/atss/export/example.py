#!/usr/bin/env python
"""Find objects in images with model.onnx. Needs onnxruntime, numpy and Pillow:

    pip install onnxruntime numpy pillow
    python example.py image.jpg more/*.jpg --output drawn/

A line an object: file, class, score, and its box, x1 y1 x2 y2 in pixels of the image. With onnxruntime-gpu it runs on
a CUDA GPU.
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


class Detector:
    """A model from an ONNX file, which also says how images must be prepared for it.

    Args:
        path: of the file.
    """

    def __init__(self, path):
        available = onnxruntime.get_available_providers()
        providers = [p for p in ("CUDAExecutionProvider", "CPUExecutionProvider") if p in available]
        self.session = onnxruntime.InferenceSession(path, providers=providers)
        self.settings = dict(self.session.get_modelmeta().custom_metadata_map)
        for name, text in self.settings.items():
            if name not in ("input_format", "resize_like"):
                self.settings[name] = json.loads(text)
        self.class_names = self.settings["class_names"]

    def __call__(self, image):
        """Find the objects of an image, (H, W, 3) uint8 in RGB order; the same as `self.batch([image])[0]`."""
        return self.batch([image])[0]

    def batch(self, images):
        """Find the objects of several images at once; best where they have one size.

        Returns:
            list of boxes (D, 4) float32 in pixels of the image, scores (D,) float32 and classes (D,) int64, best
            first.
        """
        resized = [self.resize(image) for image in images]
        sizes = np.array([image.shape[:2] for image in resized])
        batch = np.zeros((len(images), 3, *sizes.max(0)), np.uint8)
        for place, image, (height, width) in zip(batch, resized, sizes, strict=True):
            channels = image[:, :, ::-1] if self.settings["input_format"] == "BGR" else image
            place[:, :height, :width] = channels.transpose(2, 0, 1)
        found = []
        outputs = self.session.run(("boxes", "scores", "classes"), {"images": batch, "sizes": sizes})
        for boxes, scores, classes, size, image in zip(*outputs, sizes, images, strict=True):
            there = scores > 0
            boxes, scores, classes = boxes[there], scores[there], classes[there]
            if not self.settings["suppressed"]:
                kept = suppress(boxes, scores, classes, self.settings["nms_threshold"])
                kept = kept[: self.settings["max_detections"]]
                boxes, scores, classes = boxes[kept], scores[kept], classes[kept]
            found.append((self.in_original(boxes, size, image.shape[:2]), scores, classes))
        return found

    def resize(self, image):
        """The image in the size that the model was trained for."""
        height, width = new_size(*image.shape[:2], self.settings)
        if self.settings["resize_like"] == "mmdetection":
            import cv2  # such models want OpenCV's way of resizing

            return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
        return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))

    def in_original(self, boxes, size, original_size):
        """Boxes (D, 4) of the resized image in pixels of the original one; sizes are (height, width)."""
        extent, (height, width), (old_height, old_width) = self.settings["pixel_extent"], original_size, size
        new, old = np.float32([width, height] * 2), np.float32([old_width, old_height] * 2)
        ends = np.float32([0, 0, extent, extent])
        return (boxes - ends) * new / old + ends


def new_size(height, width, settings):
    """Height and width after resizing: the short side `min_size`, but the long one `max_size` at most."""
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
        if max(sides) > limit:
            scale = limit * 1.0 / max(sides)
            sides = (sides[0] * scale, sides[1] * scale)
        sides = (int(sides[0] + 0.5), int(sides[1] + 0.5))
    return max(1, sides[0]), max(1, sides[1])


def suppress(boxes, scores, classes, threshold):
    """Non-maximum suppression, class by class: indices of the boxes (B, 4) that stay, best first."""
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
    """An image file as (H, W, 3) uint8 in RGB order: upright, on white where it is transparent."""
    with Image.open(path, formats=("JPEG", "PNG", "BMP", "WEBP", "TIFF", "GIF", "PPM")) as image:
        with contextlib.suppress(Exception):  # EXIF data may be damaged
            image = ImageOps.exif_transpose(image)
        if image.mode.startswith("I"):  # 16 bits of grey
            image = Image.fromarray((np.asarray(image) // 257).astype(np.uint8))
        if image.has_transparency_data:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        return np.array(image.convert("RGB"))


def draw(image, boxes, labels, classes):
    """The image with boxes and labels, as a Pillow image."""
    drawn = Image.fromarray(image)
    pen, size = ImageDraw.Draw(drawn), max(drawn.size)
    font, line = ImageFont.load_default(max(10, size // 50)), max(1, size // 400)
    for box, label, number in zip(boxes.tolist(), labels, classes.tolist(), strict=True):
        color = tuple(int(255 * x) for x in colorsys.hsv_to_rgb(number * 0.618 % 1, 0.9, 0.9))
        pen.rectangle(box, outline=color, width=line)
        place = pen.textbbox(box[:2], label, font=font)
        pen.rectangle(place, fill=color)
        pen.text(box[:2], label, fill="white", font=font)
    return drawn


def main():
    folder = os.path.dirname(os.path.abspath(__file__))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", nargs="+", metavar="IMAGE")
    parser.add_argument("--model", default=os.path.join(folder, "model.onnx"), metavar="FILE")
    parser.add_argument("--threshold", type=float, default=0.5, help="least score of an object")
    parser.add_argument("--output", metavar="DIR", help="folder for the images with their boxes")
    args = parser.parse_args()

    detector = Detector(args.model)
    for path in args.images:
        try:
            image = read(path)
        except (OSError, ValueError) as error:
            sys.exit(f"error: {path}: cannot read this image ({error})")
        boxes, scores, classes = detector(image)
        good = scores >= args.threshold
        boxes, scores, classes = boxes[good], scores[good], classes[good]
        names = [detector.class_names[number] for number in classes]
        for name, score, box in zip(names, scores, boxes, strict=True):
            print(path, name, f"{score:.3f}", *(f"{side:.1f}" for side in box), sep="\t")
        if args.output:
            os.makedirs(args.output, exist_ok=True)
            labels = [f"{name} {score:.0%}" for name, score in zip(names, scores, strict=True)]
            name = os.path.splitext(os.path.basename(path))[0] + ".png"
            draw(image, boxes, labels, classes).save(os.path.join(args.output, name))


if __name__ == "__main__":
    main()
