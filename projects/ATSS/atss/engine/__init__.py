"""Training: the trainer, its step and hooks, and the processes that it runs in."""

from .launch import launch
from .logs import log_into
from .trainer import Trainer

__all__ = ["Trainer", "launch", "log_into"]
