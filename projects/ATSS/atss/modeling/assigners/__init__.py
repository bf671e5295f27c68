"""Label assignment: rules that choose the positive anchors of every ground truth box, one file per rule.

    matches = ATSSAssigner(topk=9)(grid, gt_boxes, ignore_boxes=None)

`Assigner.__call__` documents the arguments and the result. No rule needs Detectron2.
"""

from .assigner import ASSIGNER_REGISTRY, Assigner
from .atss import ATSSAssigner
from .backends import BACKENDS, settle_backend
from .center_sampling import CenterSamplingAssigner
from .iou import IoUAssigner
from .matches import BACKGROUND, IGNORED
from .nearest import MAX_TOPK
from .scale_range import FCOS_RANGES, ScaleRangeAssigner, check_ranges
from .topk_iou import TopKIoUAssigner

__all__ = [
    "ASSIGNER_REGISTRY",
    "BACKENDS",
    "BACKGROUND",
    "FCOS_RANGES",
    "IGNORED",
    "MAX_TOPK",
    "ATSSAssigner",
    "Assigner",
    "CenterSamplingAssigner",
    "IoUAssigner",
    "ScaleRangeAssigner",
    "TopKIoUAssigner",
    "check_ranges",
    "settle_backend",
]
