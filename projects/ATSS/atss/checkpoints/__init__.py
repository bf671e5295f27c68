from .checkpointer import Checkpointer, check_weights
from .files import newest
from .formats import is_pretrained

__all__ = ["Checkpointer", "check_weights", "is_pretrained", "newest"]
