"""Averaged weights, evaluation and the best checkpoint, drawn images."""

import copy
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from detectron2.engine import TrainerBase
from detectron2.modeling import build_model
from detectron2.utils.events import EventStorage
from torch import nn

from atss.data import read_dataset
from atss.engine.hooks import EndOfTraining, KeepBest, PredictionImages, WeightAverage


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))


def step(model):
    """Change weights and buffers."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += torch.randn_like(parameter)
        model.train()(torch.randn(2, 3, 4, 4))


def test_weight_average_is_an_exponential_moving_average_with_a_warm_up(model):
    average, expected = WeightAverage(model, decay=0.5), {}
    for t in range(12):
        step(model)
        current = copy.deepcopy(model.state_dict())
        average.after_step()
        assert all(torch.equal(value, current[key]) for key, value in model.state_dict().items()), "model unchanged"
        floats = {key: value for key, value in current.items() if value.is_floating_point()}
        decay = min(0.5, (1 + t) / (10 + t))
        expected = floats if t == 0 else {key: decay * expected[key] + (1 - decay) * floats[key] for key in floats}

    averaged = average.model.state_dict()
    for key, value in expected.items():
        assert torch.allclose(averaged[key], value, atol=1e-6), key
    assert not torch.allclose(averaged["0.weight"], model.state_dict()["0.weight"], atol=0.1), "not the last step's"


def test_weight_average_resumes_to_the_same_weights(model):
    uninterrupted, resumed = WeightAverage(model, decay=0.9), WeightAverage(model, decay=0.9)
    for number in range(6):
        if number == 3:
            resumed.load_state_dict(copy.deepcopy(uninterrupted.state_dict()))
        step(model)
        uninterrupted.after_step()
        resumed.after_step()

    ours, theirs = resumed.state_dict(), uninterrupted.state_dict()
    assert ours["steps"] == theirs["steps"] == 6
    assert all(torch.equal(value, theirs["weights"][key]) for key, value in ours["weights"].items())


class Trainer(TrainerBase):
    """Trains nothing; is evaluated every second iteration; records the checkpoints that it saves."""

    def __init__(self, aps, **options):
        super().__init__()
        self.saved, aps = [], iter(aps)
        checkpointer = SimpleNamespace(save=lambda name, iteration: self.saved.append((name, iteration)))
        self.keep = KeepBest(2, lambda: {"bbox": {"AP": next(aps)}}, checkpointer, "bbox/AP", **options)
        self.register_hooks([self.keep])

    def run_step(self):
        pass


@pytest.mark.parametrize(
    "aps, options, saved, best, waited",
    [
        ([10.0, 30.0, 20.0, 40.0], {}, [("model_best", 1), ("model_best", 3), ("model_best", 7)], (40.0, 7), 0),
        ([math.nan, 0.0, math.nan], {}, [("model_best", 1), ("model_best", 3)], (0.0, 3), 1),  # NaN: no detections
        ([10.0, 9.0, 11.0, 9.0, 12.0, 1.0], {"save": False, "patience": 2}, [], (12.0, 9), 1),  # waits anew
    ],
)
def test_the_best_checkpoint_is_saved_whenever_there_is_a_better_one(aps, options, saved, best, waited):
    trainer = Trainer(aps, **options)

    trainer.train(0, 2 * len(aps))

    assert trainer.saved == saved
    assert (trainer.keep.best, trainer.keep.best_iter, trainer.keep.waited) == (*best, waited)


def test_training_that_fails_in_its_last_iteration_is_not_evaluated():
    trainer = Trainer([10.0])

    def fail():
        if trainer.iter == 3:
            raise ValueError("the loss is not finite")

    trainer.run_step = fail
    with pytest.raises(ValueError, match="the loss is not finite"):
        trainer.train(0, 4)

    assert trainer.saved == [("model_best", 1)]


# Of iteration 6, written before the evaluation that is then due.
CHECKPOINT = {"iteration": 5, "hooks": {"KeepBest": {"best": 10.0, "best_iter": 1, "waited": 1}}}


@pytest.mark.parametrize(
    "start, aps, patience, message, iteration",
    [
        (0, [10.0, 30.0, 29.0, 30.0, 99.0], 2, r"after 8 of 100 iterations.*30\.000.*iteration 4.*2 evaluations", 7),
        (6, [8.0, 9.5], 3, r"after 8 of.*10\.000.*iteration 2", 7),  # a resumed run knows the best
        (6, [8.0], 2, "after 6 of 100", 5),  # the evaluation that was missed ends training at once
    ],
)
def test_training_ends_after_evaluations_without_a_better_one(start, aps, patience, message, iteration):
    trainer = Trainer(aps, save=start > 0, patience=patience)
    if start:
        trainer.load_state_dict(CHECKPOINT)

    with pytest.raises(EndOfTraining, match=message):
        trainer.train(start, 100)

    assert trainer.saved == [("model_final", iteration)] and trainer.state_dict()["iteration"] == iteration


@pytest.fixture
def images(tiny_config):
    cfg = tiny_config({"VIS_PERIOD": 10})
    return PredictionImages(cfg, build_model(cfg), read_dataset("tiny_val")[:2])


def test_prediction_images_are_stored_for_tensorboard(images):
    images.trainer = type("Trainer", (), {"iter": 0})
    with EventStorage(0) as storage:
        for images.trainer.iter in range(20):
            storage.iter = images.trainer.iter
            images.after_step()

    names, written, iterations = zip(*storage._vis_data, strict=True)
    ids = [f"predictions/{record['image_id']}" for record in images.records]
    assert list(names) == ids * 2 and list(iterations) == [9, 9, 19, 19]
    assert all(image.dtype == torch.uint8 and image.shape[0] == 3 for image in written)


def test_ground_truth_is_drawn_on_the_left_and_the_model_stays_in_training(images):
    images.model.train()
    before = copy.deepcopy(images.model.state_dict())

    drawn = images.draw(images.records[0])
    bare = images.draw({**images.records[0], "annotations": []})

    half = drawn.shape[1] // 2
    assert isinstance(drawn, np.ndarray)
    assert (drawn[:, :half] != bare[:, :half]).any()
    assert (drawn[:, half:] == bare[:, half:]).all()
    assert images.model.training
    assert all(torch.equal(value, before[key]) for key, value in images.model.state_dict().items())
