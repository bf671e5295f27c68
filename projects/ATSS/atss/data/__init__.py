"""Datasets by name, and the loaders that read them; importing this registers the generated images."""

from .augmentations.registry import make_augmentations
from .catalog import read_dataset, register_coco_format, register_folder, register_folder_unseen
from .loaders import check_data, test_loader, train_loader, validation_loader
from .pixels import RESIZE_BACKENDS
from .resize import RESIZE_LIKE, EvalResize
from .shapes import register_shapes
from .train_loader import SAMPLERS

__all__ = [
    "RESIZE_BACKENDS",
    "RESIZE_LIKE",
    "SAMPLERS",
    "EvalResize",
    "check_data",
    "make_augmentations",
    "read_dataset",
    "register_coco_format",
    "register_folder",
    "register_folder_unseen",
    "test_loader",
    "train_loader",
    "validation_loader",
]

register_shapes()
