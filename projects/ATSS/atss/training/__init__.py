"""What the trainer does in the steps and besides: averaged weights, the best checkpoint, progress, pictures."""

from .average import WeightAverage
from .best import KeepBest
from .ending import EndOfTraining
from .evaluation import Evaluation
from .notice import Notice, StopOnNotice
from .pictures import PredictionPictures
from .progress import LogLine, TerminalLine
from .step import TrainingStep

__all__ = [
    "EndOfTraining",
    "Evaluation",
    "KeepBest",
    "LogLine",
    "Notice",
    "PredictionPictures",
    "StopOnNotice",
    "TerminalLine",
    "TrainingStep",
    "WeightAverage",
]
