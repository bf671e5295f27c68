"""ATSS, Adaptive Training Sample Selection (arXiv 1912.02424), on Detectron2. Importing this registers everything.

`atss.modeling.assigners`, `anchors`, `losses` and `box_coding` work without Detectron2.
"""

import warnings

# Deprecations in Detectron2 and torch that users cannot act on.
warnings.filterwarnings("ignore", message="`torch.jit.script` is deprecated", category=FutureWarning)
warnings.filterwarnings("ignore", message="TypedStorage is deprecated", category=UserWarning)
warnings.filterwarnings("ignore", message="`broadcast_buffers` is deprecated", category=FutureWarning)

__version__ = "0.1.0"

try:
    import detectron2
except ImportError:
    detectron2 = None

if detectron2:
    from . import data
    from .config import add_atss_config
    from .modeling import ATSS, ATSS_HEAD_REGISTRY, ATSSHead

    __all__ = ["ATSS", "ATSS_HEAD_REGISTRY", "ATSSHead", "add_atss_config", "data"]
