from .checkpointer import BOTTOM_UP, Checkpointer, check_weights

__all__ = ["BOTTOM_UP", "Checkpointer", "check_weights"]
