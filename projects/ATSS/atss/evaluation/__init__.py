from .augmentation import MERGES, MultiScaleTest
from .coco import build_coco_evaluator, inference_folder
from .validation import validation_losses

__all__ = ["MERGES", "MultiScaleTest", "build_coco_evaluator", "inference_folder", "validation_losses"]
