"""The best checkpoint and the early end, over evaluations that are made up."""

import math

import pytest
from detectron2.engine import TrainerBase

from atss.engine.best import KeepBest
from atss.engine.ending import EndOfTraining
from atss.engine.evaluation import Evaluation


class Saved(list):
    """A checkpointer that notes what is saved when."""

    def save(self, name, iteration):
        self.append((name, iteration))


class Trainer(TrainerBase):
    """Trains nothing, and is evaluated every second iteration."""

    def __init__(self, figures, **options):
        super().__init__()
        self.saved = Saved()
        figures = iter(figures)
        evaluate = Evaluation(2, lambda: {"bbox": {"AP": next(figures)}})
        self.best = KeepBest(self.saved, 2, "bbox/AP", **options)
        self.register_hooks([evaluate, self.best])

    def run_step(self):
        pass


def test_the_best_checkpoint_is_saved_whenever_there_is_a_better_one():
    trainer = Trainer([10.0, 30.0, 20.0, 40.0])

    trainer.train(0, 8)

    assert trainer.saved == [("model_best", 1), ("model_best", 3), ("model_best", 7)]
    assert (trainer.best.best, trainer.best.best_iter) == (40.0, 7)


def test_a_model_that_finds_nothing_is_the_worst():
    trainer = Trainer([math.nan, 0.0, math.nan])

    trainer.train(0, 6)

    assert trainer.best.best == 0.0 and len(trainer.saved) == 2


def test_training_ends_where_it_no_longer_helps():
    trainer = Trainer([10.0, 30.0, 29.0, 30.0, 99.0], save=False, patience=2)

    with pytest.raises(EndOfTraining, match=r"after 8 of 100 iterations.*30\.000.*iteration 4.*2 evaluations"):
        trainer.train(0, 100)

    assert trainer.saved == [("model_final", 7)]


def test_it_waits_from_the_best_on():
    trainer = Trainer([10.0, 9.0, 11.0, 9.0, 12.0, 1.0], save=False, patience=2)

    trainer.train(0, 12)

    assert trainer.best.waited == 1 and trainer.saved == []


# What a checkpoint of iteration 6 knows, which is written before the evaluation that is then due.
CHECKPOINT = {"iteration": 5, "hooks": {"KeepBest": {"best": 10.0, "best_iter": 1, "waited": 1}}}


def test_resumed_it_knows_the_best_and_makes_up_for_the_evaluation_after_the_checkpoint():
    trainer = Trainer([8.0, 9.5], patience=3)
    trainer.load_state_dict(CHECKPOINT)

    with pytest.raises(EndOfTraining, match=r"after 8 of.*10\.000.*iteration 2"):
        trainer.train(6, 100)

    assert trainer.saved == [("model_final", 7)]


def test_made_up_for_the_evaluation_may_end_training_at_once():
    trainer = Trainer([8.0], patience=2)
    trainer.load_state_dict(CHECKPOINT)

    with pytest.raises(EndOfTraining, match="after 6 of 100"):
        trainer.train(6, 100)

    assert trainer.saved == [("model_final", 5)] and trainer.state_dict()["iteration"] == 5
