"""A trained model for images: from files or arrays to boxes with names."""

import os
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from detectron2.modeling import build_model
from PIL import Image

from .checkpoints import Checkpointer
from .config import load_config
from .data import EvalResize
from .data.image_io import read_image, to_rgb
from .errors import InputError
from .evaluation import MultiScaleTest

# Images that a GPU looks at together. A CPU gains nothing by it, but for small models of small images.
GPU_BATCH_SIZE = 8


@dataclass(frozen=True)
class Found:
    """The D objects found in an image, best first; `len()` of it is D.

    boxes: (D, 4) float32, x1 y1 x2 y2 in pixels of the image.
    scores: (D,) float32, from 0 to 1.
    classes: (D,) int64.
    names: list of D class names.
    """

    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray
    names: list

    def __len__(self):
        return len(self.scores)


class Predictor:
    """Loads the model of a config and finds the objects of images.

    Args:
        cfg: MODEL.WEIGHTS names the checkpoint, INPUT.*_SIZE_TEST the size that images are brought to, or TEST.AUG
            the sizes.

    Raises:
        InputError: the checkpoint is missing, damaged or of another model.
    """

    def __init__(self, cfg):
        if not cfg.MODEL.WEIGHTS:
            raise InputError("MODEL.WEIGHTS: name the checkpoint to use")
        self.model = build_model(cfg).eval()
        Checkpointer(self.model, allow_pickle=cfg.MODEL.ATSS.ALLOW_PICKLE).load(cfg.MODEL.WEIGHTS)
        self.divisor = self.model.backbone.size_divisibility
        self.resize = EvalResize.of(cfg)
        if cfg.TEST.AUG.ENABLED:
            self.model, self.resize = MultiScaleTest.of(cfg, self.model), EvalResize(0, 0)
        self.format = cfg.INPUT.FORMAT
        self.class_names = class_names_of(cfg)
        self.batch_size = GPU_BATCH_SIZE if cfg.MODEL.DEVICE.startswith("cuda") else 1

    @classmethod
    def load(cls, config_file, weights=None, opts=()):
        """The predictor of a config file.

        Args:
            config_file: path; the `config.yaml` of a run, say.
            weights: path of the checkpoint; that of the config where it is None.
            opts: list of further config keys and values in turn.
        """
        weights = [] if weights is None else ["MODEL.WEIGHTS", str(weights)]
        return cls(load_config(str(config_file), [*weights, *map(str, opts)], read_datasets=False))

    def predict(self, images, min_score=0.5, batch_size=None):
        """Find the objects of an image, or of several.

        Args:
            images: path of a file, (H, W, 3) uint8 array in BGR order (as OpenCV has it), (H, W) uint8 array of
                grey, or Pillow image; or an iterable of such, of any sizes.
            min_score: objects with a lower score are left out.
            batch_size: images that the model sees together, at most; 8 on a GPU and 1 on a CPU where it is None.

        Returns:
            `Found`; for an iterable a list of them.

        Raises:
            InputError: a file cannot be read, or an array has no image's shape.
            TypeError: something else than an image.
        """
        batch_size = self.batch_size if batch_size is None else batch_size
        if batch_size < 1:
            raise InputError(f"batch_size: expected at least 1, got {batch_size}")
        if not isinstance(images, Iterable) or isinstance(images, (str, os.PathLike, np.ndarray)):
            return self.found(self(images), min_score)
        numbered, found = enumerate(images), []
        while batch := list(islice(numbered, batch_size)):
            instances = self.detect([self.prepare_numbered(number, image) for number, image in batch])
            found += [self.found(x, min_score) for x in instances]
        return found

    def __call__(self, image):
        """Find the objects of an image, in Detectron2's form.

        Args:
            image: (H, W, 3) uint8 array in BGR order, or what else `predict` takes as an image.

        Returns:
            `Instances` on the CPU, in pixels of the image: `pred_boxes`, `scores`, `pred_classes`, best first.
        """
        return self.detect([self.prepare(bgr_image(image))])[0]

    def prepare(self, image):
        """An image (H, W, 3), uint8 in BGR order, as the dict that the model takes."""
        height, width = image.shape[:2]
        if self.format == "RGB":
            image = image[:, :, ::-1]
        resized = self.resize.get_transform(image).apply_image(image)
        tensor = torch.as_tensor(resized.transpose(2, 0, 1).copy())
        return {"image": tensor, "height": height, "width": width}

    def prepare_numbered(self, number, image):
        try:
            return self.prepare(bgr_image(image))
        except (InputError, TypeError) as error:
            raise type(error)(f"image {number} of the list: {error}") from error

    @torch.no_grad()
    def detect(self, inputs):
        """Find the objects of what `prepare` has made of N images.

        Only images that are padded to the same size go through the model together: group normalisation looks at the
        padding, too, and an image's boxes shall not depend on its company.

        Args:
            inputs: list of N dicts.

        Returns:
            list of N `Instances` on the CPU, as `__call__` gives them.
        """
        groups = defaultdict(list)
        for index, x in enumerate(inputs):
            groups[tuple(-(-side // self.divisor) for side in x["image"].shape[1:])].append(index)
        found = [None] * len(inputs)
        for indices in groups.values():
            for index, x in zip(indices, self.model([inputs[i] for i in indices]), strict=True):
                found[index] = x["instances"].to("cpu")
        return found

    def found(self, instances, min_score):
        """`Instances` with a score of `min_score` at least, as `Found`."""
        instances = instances[instances.scores >= min_score]
        classes = instances.pred_classes.numpy()
        names = [self.class_names[c] for c in classes]
        return Found(instances.pred_boxes.tensor.numpy(), instances.scores.numpy(), classes, names)


def class_names_of(cfg):
    """Names of all classes; a converted model, say, may only know their numbers."""
    return list(cfg.MODEL.ATSS.CLASS_NAMES) or [f"class {i}" for i in range(cfg.MODEL.ATSS.NUM_CLASSES)]


def bgr_image(image):
    """A path, array or Pillow image as a (H, W, 3) uint8 array in BGR order.

    Raises:
        InputError: the file cannot be read, or the array has no image's shape.
        TypeError: something else than an image.
    """
    if isinstance(image, (str, os.PathLike)):
        return read_image(image)
    if isinstance(image, Image.Image):
        return np.asarray(to_rgb(image))[:, :, ::-1]
    expected = "expected a path, a (H, W, 3) uint8 array in BGR order, a (H, W) uint8 array or a Pillow image"
    if not isinstance(image, np.ndarray):
        raise TypeError(f"{expected}, got {type(image).__name__}")
    if image.dtype != np.uint8:
        raise TypeError(f"{expected}, got an array of {image.dtype}")
    if image.ndim == 2:
        image = np.repeat(image[:, :, None], 3, axis=2)
    if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise InputError(f"{expected}, got an array of shape {image.shape}")
    return image
