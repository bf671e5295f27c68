"""Averaged weights: the definition, checkpoints, resuming."""

import copy

import pytest
import torch
from torch import nn

from atss.engine.average import WeightAverage


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))


def step(model):
    """Something that changes weights and statistics."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += torch.randn_like(parameter)
        model.train()(torch.randn(2, 3, 4, 4))


def test_it_is_the_moving_average_that_was_defined(model):
    average, expected = WeightAverage(model, decay=0.5), {}
    for t in range(12):
        step(model)
        average.after_step()
        now = {key: value.clone() for key, value in model.state_dict().items() if value.is_floating_point()}
        decay = min(0.5, (1 + t) / (10 + t))
        expected = now if t == 0 else {key: decay * expected[key] + (1 - decay) * now[key] for key in now}

    kept = average.model.state_dict()
    for key, value in expected.items():
        assert torch.allclose(kept[key], value, atol=1e-6), key
    assert not torch.allclose(kept["0.weight"], model.state_dict()["0.weight"], atol=0.1), "not the last step's"


def test_the_model_that_is_trained_stays_as_it_is(model):
    step(model)
    before = copy.deepcopy(model.state_dict())

    WeightAverage(model, decay=0.9).after_step()

    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_resumed_it_goes_on_to_the_same_weights(model):
    through = WeightAverage(model, decay=0.9)
    for _ in range(3):
        step(model)
        through.after_step()
    resumed = WeightAverage(model, decay=0.9)
    resumed.load_state_dict(copy.deepcopy(through.state_dict()))
    for _ in range(3):
        step(model)
        through.after_step()
        resumed.after_step()

    ours, theirs = resumed.state_dict(), through.state_dict()
    assert ours["steps"] == theirs["steps"] == 6
    assert all(torch.equal(value, theirs["weights"][key]) for key, value in ours["weights"].items())
