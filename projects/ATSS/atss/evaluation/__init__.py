from .augmentation import MERGES, MultiScaleTest
from .coco import build_coco_evaluator

__all__ = ["MERGES", "MultiScaleTest", "build_coco_evaluator"]
