"""The mapper of training with INPUT.AUGMENTATIONS."""

import numpy as np
from detectron2.config import configurable
from detectron2.data import transforms as T

from ..augmentation import ImageInput
from ..image_io import upright_size
from ..mapper import BoxDatasetMapper, check_size
from ..pixels import TorchPixels, read_pixels
from .cut_objects import follow
from .framing import Framing
from .registry import make_augmentations


class AugmentedMapper(BoxDatasetMapper):
    """`BoxDatasetMapper` with mosaics, and with the rule of `cut_objects` for boxes.

    Args:
        mosaic: `Mosaic`, or None.
        others: as for `BoxDatasetMapper`; a `Framing` is among its augmentations.

    The attribute `dicts` is the sequence of dicts that a mosaic takes images from.
    """

    @configurable
    def __init__(self, is_train, *, mosaic=None, **others):
        super().__init__(is_train, **others)
        self.mosaic = mosaic
        self.dicts = ()

    @classmethod
    def from_config(cls, cfg, is_train=True):
        arguments = super().from_config(cfg, is_train)
        steps = arguments["augmentations"]
        at = [type(step) for step in steps].index(T.ResizeShortestEdge)
        mean = tuple(round(value) for value in cfg.MODEL.PIXEL_MEAN)  # what the padding of a batch amounts to
        made = make_augmentations(cfg.INPUT.AUGMENTATIONS, format=cfg.INPUT.FORMAT, fill=mean, resize=steps[at])
        mosaic, jitter = made.pop("mosaic", None), made.pop("scale_jitter", None)
        steps[at] = Framing(steps[at], jitter, list(made.values()))
        return {**arguments, "mosaic": mosaic}

    def start(self, record):
        if self.mosaic and np.random.rand() < self.mosaic.p:
            pixels, annotations = self.mosaic.draw(record, self.dicts, self)
            return ImageInput(TorchPixels(pixels), framed=True), annotations
        return super().start(record)

    def size_of(self, record):
        """(height, width) of the image of a dict, without decoding it; raises InputError as when called."""
        width, height = upright_size(record["file_name"], self.max_pixels)
        check_size(record, np.broadcast_to(np.uint8(0), (height, width)))
        return height, width

    def read_reduced(self, record, scale):
        """The image of a dict, `scale` times its size or larger; as `pixels.read_pixels`."""
        return read_pixels(record["file_name"], self.image_format, self.max_pixels, scale=scale)

    def _transform_annotations(self, record, transforms, image_shape):
        record["annotations"] = follow(record["annotations"], transforms, image_shape)
        super()._transform_annotations(record, T.NoOpTransform(), image_shape)
