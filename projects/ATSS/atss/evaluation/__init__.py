from .augmentation import MERGES, MultiScaleTest
from .coco import build_coco_evaluator, inference_folder
from .tiles import TiledTest
from .validation import validation_losses

__all__ = [
    "MERGES",
    "MultiScaleTest",
    "TiledTest",
    "build_coco_evaluator",
    "for_testing",
    "inference_folder",
    "validation_losses",
]


def for_testing(cfg, model):
    """The model with multi-scale testing (TEST.AUG) and tiles (TEST.TILE), where the config enables them.

    Its input is resized by `EvalResize.before_model(cfg)`.
    """
    model = MultiScaleTest.of(cfg, model) if cfg.TEST.AUG.ENABLED else model
    return TiledTest.of(cfg, model) if cfg.TEST.TILE.SIZE else model
