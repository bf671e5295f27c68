"""The best checkpoint and the early end, over evaluations that are made up."""

import math

import pytest
from detectron2.engine import TrainerBase
from detectron2.engine.hooks import EvalHook

from atss.training import EarlyStop, KeepBest


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
        evaluate = EvalHook(2, lambda: {"bbox": {"AP": next(figures)}})
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

    with pytest.raises(EarlyStop, match=r"after 8 of 100 iterations.*30\.000.*iteration 4.*2 evaluations"):
        trainer.train(0, 100)

    assert trainer.saved == [("model_final", 7)]


def test_it_waits_from_the_best_on():
    trainer = Trainer([10.0, 9.0, 11.0, 9.0, 12.0, 1.0], save=False, patience=2)

    trainer.train(0, 12)

    assert trainer.best.waited == 1 and trainer.saved == []


def test_resumed_it_knows_the_best():
    first = Trainer([10.0, 9.0, 8.0], patience=3)
    first.train(0, 6)
    second = Trainer([9.5], patience=3)
    second.load_state_dict(first.state_dict())

    with pytest.raises(EarlyStop, match=r"10\.000"):
        second.train(6, 100)
    assert second.saved == [("model_final", 7)]
