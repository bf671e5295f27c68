"""Export of a trained detector to files that run without this project.

Import `onnx_file` by itself: it needs onnx, onnxscript and onnxruntime.
"""

from .detector import ExportedATSS, describe
from .selection import suppress, suppress_op
from .torch_file import capture, load_torch, save_torch
from .verification import Comparison, compare

__all__ = [
    "Comparison", "ExportedATSS", "capture", "compare", "describe", "load_torch", "save_torch", "suppress",
    "suppress_op",
]  # fmt: skip
