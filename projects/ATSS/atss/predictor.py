"""A trained model for inference: from image files or arrays to detections with class names."""

import copy
import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TypeAlias

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from detectron2.structures import Instances
from PIL import Image

from .checkpoints import Checkpointer, newest
from .config import check_tiles, load_config
from .data import EvalResize
from .data.image_io import MAX_PIXELS, read_image, to_rgb
from .errors import InputError
from .evaluation import for_testing
from .modeling import for_inference

# Images per batch on a GPU. A CPU gains from batches only with small models and images.
GPU_BATCH_SIZE = 8

ImageLike: TypeAlias = str | os.PathLike | np.ndarray | Image.Image


@dataclass(frozen=True)
class ImageDetections:
    """The D detections of an image, sorted by score; `len()` is D."""

    boxes: np.ndarray  # (D, 4) float32, x1 y1 x2 y2 in pixels of the image
    scores: np.ndarray  # (D,) float32, from 0 to 1
    classes: np.ndarray  # (D,) int64
    names: list[str]  # D class names

    def __len__(self) -> int:
        return len(self.scores)

    def to_supervision(self):
        """The detections as `supervision.Detections`, with the class names as `data["class_name"]`.

        Raises:
            InputError: supervision is not installed.
        """
        try:
            import supervision
        except ImportError:
            raise InputError("to_supervision needs supervision: pip install supervision") from None
        names = {"class_name": np.array(self.names, dtype=str)}
        return supervision.Detections(self.boxes, confidence=self.scores, class_id=self.classes, data=names)


class Predictor:
    """A model with the weights in MODEL.WEIGHTS and the test-time input of its config.

    INPUT.*_SIZE_TEST gives the size of the input, or TEST.AUG the sizes of multi-scale testing, and TEST.TILE divides
    images.

    Raises:
        InputError: the checkpoint is missing, damaged or of another model.
    """

    def __init__(self, cfg: CfgNode):
        if not cfg.MODEL.WEIGHTS:
            raise InputError("MODEL.WEIGHTS: name the checkpoint to use")
        model = build_model(cfg)
        Checkpointer(model, allow_pickle=cfg.MODEL.ATSS.ALLOW_PICKLE).load(cfg.MODEL.WEIGHTS)
        self.detector = for_inference(model)
        self.divisor, self.format, self.class_names = model.size_divisibility, cfg.INPUT.FORMAT, class_names_of(cfg)
        self.set_input(cfg)

    def set_input(self, cfg: CfgNode) -> None:
        """Take the test-time input from a config: INPUT.*_SIZE_TEST, TEST.AUG and TEST.TILE."""
        self.cfg, self.model, self.resize = cfg, for_testing(cfg, self.detector), EvalResize.before_model(cfg)
        # Tiles have batches of their own.
        self.batch_size = GPU_BATCH_SIZE if cfg.MODEL.DEVICE.startswith("cuda") and not cfg.TEST.TILE.SIZE else 1

    @classmethod
    def load(
        cls, config_file: str | os.PathLike, weights: str | os.PathLike | None = None, opts: Sequence = ()
    ) -> "Predictor":
        """Load a config file, such as the `config.yaml` of a run, and the checkpoint at the path `weights`.

        `opts` are alternating config keys and values. `config_file` may be the folder of a run. With weights None the
        last checkpoint in that folder is loaded, or else MODEL.WEIGHTS.
        """
        config_file, opts = os.fspath(config_file), [*map(str, opts)]
        if os.path.isdir(config_file):
            folder, config_file = config_file, os.path.join(config_file, "config.yaml")
            weights = newest(folder) if weights is None else weights
        weights = [] if weights is None else ["MODEL.WEIGHTS", str(weights)]
        return cls(load_config(config_file, [*weights, *opts], read_datasets=False))

    def predict(
        self,
        images: ImageLike | Iterable[ImageLike],
        min_score: float = 0.5,
        batch_size: int | None = None,
        tile: int | None = None,
        overlap: float | None = None,
    ) -> ImageDetections | list[ImageDetections]:
        """Detect objects in an image, or in several.

        Args:
            images: path of a file, (H, W, 3) uint8 array in BGR order as in OpenCV, (H, W) uint8 grey array, or Pillow
                image; or an iterable of such images, of any sizes, which gives a list.
            min_score: minimum score of a detection.
            batch_size: maximum number of images per batch; by default 8 on a GPU, and 1 on a CPU or with tiles.
            tile: height and width of tiles in pixels of the image, 0 for none; by default TEST.TILE.SIZE.
            overlap: share of a tile that it has in common with the next one; by default TEST.TILE.OVERLAP.

        Raises:
            InputError: a file cannot be read, an array does not have the shape of an image, or tiles are too small.
            TypeError: an argument is not an image.
        """
        if tile is not None or overlap is not None:
            return self.with_tiles(tile, overlap).predict(images, min_score, batch_size)
        batch_size = self.batch_size if batch_size is None else batch_size
        if batch_size < 1:
            raise InputError(f"batch_size: expected at least 1, got {batch_size}")
        if not isinstance(images, Iterable) or isinstance(images, (str, os.PathLike, np.ndarray)):
            return self.to_detections(self(images), min_score)
        numbered, detections = enumerate(images), []
        while batch := list(islice(numbered, batch_size)):
            instances = self.detect([self._prepare_numbered(number, image) for number, image in batch])
            detections += [self.to_detections(x, min_score) for x in instances]
        return detections

    def with_tiles(self, tile: int | None = None, overlap: float | None = None) -> "Predictor":
        """The same model with other tiles; arguments and errors as for `predict`."""
        cfg = self.cfg.clone()
        cfg.defrost()
        for key, value in {"SIZE": tile, "OVERLAP": overlap}.items():
            if value is not None:
                cfg.TEST.TILE[key] = value
        check_tiles(cfg)
        predictor = copy.copy(self)
        predictor.set_input(cfg)
        return predictor

    def __call__(self, image: ImageLike) -> Instances:
        """Detect objects in an image, given as in `predict`.

        Returns:
            instances on the CPU, in pixels of the image: `pred_boxes`, `scores`, `pred_classes`, sorted by score.
        """
        return self.detect([self.prepare(bgr_image(image, self.cfg.INPUT.MAX_PIXELS))])[0]

    def prepare(self, image: np.ndarray) -> dict:
        """Convert an image (H, W, 3), uint8 in BGR order, to the model's input."""
        height, width = image.shape[:2]
        image = image[:, :, ::-1] if self.format == "RGB" else image
        resized = image if self.resize is None else self.resize.get_transform(image).apply_image(image)
        tensor = torch.as_tensor(resized.transpose(2, 0, 1).copy())
        return {"image": tensor, "height": height, "width": width}

    def _prepare_numbered(self, number, image):
        try:
            return self.prepare(bgr_image(image, self.cfg.INPUT.MAX_PIXELS))
        except (InputError, TypeError) as error:
            raise type(error)(f"image {number} of the list: {error}") from error

    @torch.no_grad()
    def detect(self, inputs: list[dict]) -> list[Instances]:
        """Detect objects in N images, given as results of `prepare`; instances as in `__call__`.

        Only images that are padded to the same size share a batch: group normalisation depends on the padding, and the
        detections of an image must not depend on the other images.
        """
        groups = defaultdict(list)
        for index, x in enumerate(inputs):
            groups[tuple(-(-side // self.divisor) for side in x["image"].shape[1:])].append(index)
        instances = [None] * len(inputs)
        for indices in groups.values():
            for index, x in zip(indices, self.model([inputs[i] for i in indices]), strict=True):
                instances[index] = x["instances"].to("cpu")
        return instances

    def to_detections(self, instances: Instances, min_score: float) -> ImageDetections:
        """Convert instances with a score of at least `min_score`."""
        instances = instances[instances.scores >= min_score]
        classes = instances.pred_classes.numpy()
        names = [self.class_names[c] for c in classes]
        return ImageDetections(instances.pred_boxes.tensor.numpy(), instances.scores.numpy(), classes, names)


def class_names_of(cfg: CfgNode) -> list[str]:
    """Names of all classes; "class 0" and so on if the config has none, as that of a converted model."""
    return list(cfg.MODEL.ATSS.CLASS_NAMES) or [f"class {i}" for i in range(cfg.MODEL.ATSS.NUM_CLASSES)]


def bgr_image(image: ImageLike, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Convert a path, array or Pillow image to a (H, W, 3) uint8 array in BGR order; raises as `Predictor.predict`.

    `max_pixels` is the maximum number of pixels of an image file.
    """
    if isinstance(image, (str, os.PathLike)):
        return read_image(image, max_pixels=max_pixels)
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
