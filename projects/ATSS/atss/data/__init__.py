"""Datasets by name, and the loaders that read them; importing this registers the generated pictures."""

from .coco import register_coco_format
from .loaders import check_data, read_dataset, test_loader, train_loader
from .resize import RESIZE_LIKE, EvalResize
from .shapes import register_shapes

__all__ = [
    "RESIZE_LIKE",
    "EvalResize",
    "check_data",
    "read_dataset",
    "register_coco_format",
    "test_loader",
    "train_loader",
]

register_shapes()
