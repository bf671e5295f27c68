"""Training: the trainer, its step and hooks, and its processes."""

from .launch import launch
from .trainer import Trainer

__all__ = ["Trainer", "launch"]
