"""The detector, from an image to its losses or detections.

`anchors`, `box_coding`, `losses` and `assigners` need no Detectron2; the other modules do.
"""

from .anchors import AnchorGrid, make_cell_anchors
from .box_coding import BoxCoding, PointCoding

__all__ = ["AnchorGrid", "BoxCoding", "PointCoding", "make_cell_anchors"]

try:
    import detectron2
except ImportError:
    detectron2 = None

if detectron2:
    from . import backbones
    from .backbones.frozen_norm import for_inference
    from .detector import ATSS
    from .head import ATSS_HEAD_REGISTRY, ATSSHead

    __all__ += ["ATSS", "ATSS_HEAD_REGISTRY", "ATSSHead", "backbones", "for_inference"]
