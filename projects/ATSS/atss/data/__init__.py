"""Datasets by name, and the loaders that read them; importing this registers the generated pictures."""

from .coco import register_coco_format
from .loaders import check_data, read_dataset, test_loader, train_loader
from .shapes import register_shapes

__all__ = ["check_data", "read_dataset", "register_coco_format", "test_loader", "train_loader"]

register_shapes()
