"""A trained detector as a file that runs without this project; `onnx_file` is imported where it is wanted, as it needs
packages of its own."""

from .detector import ExportedATSS
from .metadata import describe
from .suppression import suppress, suppress_op
from .torch_file import capture, load_torch, save_torch
from .verification import Comparison, compare

__all__ = [
    "Comparison",
    "ExportedATSS",
    "capture",
    "compare",
    "describe",
    "load_torch",
    "save_torch",
    "suppress",
    "suppress_op",
]
