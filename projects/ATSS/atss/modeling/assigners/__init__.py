"""Rules that choose the positive anchors of every object: one file a rule, one call for all.

    matches = ATSSAssigner(topk=9)(grid, gt_boxes, ignore_boxes=None)

takes the `AnchorGrid` of a batch of N images with R anchors, and the objects of every image as a list of N
tensors (G_i, 4), x1 y1 x2 y2 in pixels; it returns an (N, R) int64 tensor: the index of the object within its image,
BACKGROUND where an anchor has none, IGNORED where it takes no part in the loss.
"""

from .atss import ATSSAssigner
from .backends import BACKENDS, settle_backend
from .center_sampling import CenterSamplingAssigner
from .iou import IoUAssigner
from .matches import BACKGROUND, IGNORED
from .nearest import MAX_TOPK
from .registry import ASSIGNER_REGISTRY
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
    "CenterSamplingAssigner",
    "IoUAssigner",
    "ScaleRangeAssigner",
    "TopKIoUAssigner",
    "check_ranges",
    "settle_backend",
]
