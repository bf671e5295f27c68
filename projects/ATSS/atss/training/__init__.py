"""What the trainer does besides the steps: averaged weights, the best checkpoint, progress, pictures."""

from .average import WeightAverage
from .best import EarlyStop, KeepBest
from .pictures import PredictionPictures
from .progress import LogLine, TerminalLine

__all__ = ["EarlyStop", "KeepBest", "LogLine", "PredictionPictures", "TerminalLine", "WeightAverage"]
