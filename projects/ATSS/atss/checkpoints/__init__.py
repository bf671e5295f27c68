from .checkpointer import Checkpointer, check_weights
from .formats import BOTTOM_UP

__all__ = ["BOTTOM_UP", "Checkpointer", "check_weights"]
