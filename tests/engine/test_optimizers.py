"""Optimizers whose steps the device can skip."""

import pytest
import torch
from torch import nn

from atss.engine.optimizers import build_optimizer, make_skippable
from tests.helpers import pairs, paper_config


@pytest.fixture
def build():
    """Function: settings -> a small model and its optimizer."""

    def make(**settings):
        torch.manual_seed(0)
        model, cfg = nn.Sequential(nn.Conv2d(3, 4, 2), nn.GroupNorm(2, 4)), paper_config()
        cfg.merge_from_list(pairs({f"SOLVER.{key}": value for key, value in settings.items()}))
        return model, build_optimizer(cfg, model)

    return make


def step(model, optimizer, found_inf=0.0, factor=1.0):
    """Set a gradient, and step; the weights."""
    for number, parameter in enumerate(model.parameters()):
        parameter.grad = (
            torch.linspace(-1, 1, parameter.numel()).view_as(parameter).contiguous() * (number + 1) * factor
        )
    if optimizer.param_groups[0]["fused"]:
        optimizer.found_inf = torch.tensor(found_inf)
    optimizer.step()
    return [parameter.detach().clone() for parameter in model.parameters()]


def equal(first, second):
    return all(torch.equal(x, y) for x, y in zip(first, second, strict=True))


@pytest.mark.parametrize("name", ["SGD", "AdamW"])
@pytest.mark.parametrize("clip", [False, True], ids=["", "clipped"])
def test_a_skipped_step_changes_nothing_not_even_as_the_first(build, name, clip):
    settings = {"OPTIMIZER": name, "CLIP_GRADIENTS.ENABLED": clip, "CLIP_GRADIENTS.CLIP_VALUE": 0.1}
    (model, skipping), (other, plain) = build(**settings), build(**settings)
    make_skippable(skipping)
    before = [parameter.detach().clone() for parameter in model.parameters()]

    assert equal(step(model, skipping, found_inf=1.0, factor=torch.nan), before)
    for _ in range(3):
        expected = step(other, plain)
        assert equal(step(model, skipping), expected)
        step(model, skipping, found_inf=1.0, factor=torch.inf)
    assert not equal(expected, before)


def test_gradients_are_clipped(build):
    rates = {"BASE_LR": 1.0, "BIAS_LR_FACTOR": 1.0, "WEIGHT_DECAY": 0.0}
    model, optimizer = build(**rates, **{"CLIP_GRADIENTS.ENABLED": True, "CLIP_GRADIENTS.CLIP_VALUE": 0.1})
    before = [parameter.detach().clone() for parameter in model.parameters()]

    after = step(model, optimizer)

    assert all((x - y).abs().max() <= 0.101 for x, y in zip(before, after, strict=True))


def test_a_state_saved_by_another_kind_of_the_optimizer_does_not_change_the_kind(build):
    """Detectron2's SGD is not fused: its state has `fused: None`, and momentum of those parameters with a gradient."""
    (model, optimizer), (other, _) = build(), build()
    their = {id(parameter): theirs for parameter, theirs in zip(model.parameters(), other.parameters(), strict=True)}
    groups = [{**group, "params": [their[id(p)] for p in group["params"]]} for group in optimizer.param_groups]
    old = torch.optim.SGD([{**group, "fused": None} for group in groups])
    step(other, old)
    state = old.state_dict()
    del state["state"][len(state["state"]) - 1]

    optimizer.load_state_dict(state)
    assert not any(group["fused"] for group in optimizer.param_groups), "as torch does it"
    make_skippable(optimizer)

    before = [parameter.detach().clone() for parameter in model.parameters()]
    assert all(group["fused"] for group in optimizer.param_groups)
    assert equal(step(model, optimizer, found_inf=1.0), before)
    assert not equal(step(model, optimizer), before)


def test_momentum_of_another_memory_format_is_that_of_the_same_elements(build):
    """Fused kernels go through memory, where elements of channels-last tensors have another order."""
    (model, optimizer), (other, plain) = build(), build()
    step(model, optimizer), step(other, plain)
    model.to(memory_format=torch.channels_last)
    optimizer.load_state_dict(plain.state_dict())
    make_skippable(optimizer)

    for parameter in model.parameters():
        assert optimizer.state[parameter]["momentum_buffer"].stride() == parameter.stride()
    for ours, theirs in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(optimizer.state[ours]["momentum_buffer"], plain.state[theirs]["momentum_buffer"])


def test_parameters_are_grouped_as_detectron2_groups_them(build):
    """Checkpoints number parameters by group."""
    from detectron2.solver import build_optimizer as build_detectron2s

    model, optimizer = build(WEIGHT_DECAY_NORM=0.0, BIAS_LR_FACTOR=2.0)
    cfg = paper_config()
    cfg.merge_from_list(pairs({"SOLVER.WEIGHT_DECAY_NORM": 0.0, "SOLVER.BIAS_LR_FACTOR": 2.0}))

    theirs = build_detectron2s(cfg, model)

    assert len(optimizer.param_groups) == len(theirs.param_groups) > 1
    for ours, group in zip(optimizer.param_groups, theirs.param_groups, strict=True):
        assert [id(p) for p in ours["params"]] == [id(p) for p in group["params"]]
        assert {**ours, "fused": None, "params": None} == {**group, "params": None}


def test_an_optimizer_that_cannot_skip_is_refused():
    with pytest.raises(ValueError, match="SGD: build it with fused=True"):
        make_skippable(torch.optim.SGD([nn.Parameter(torch.ones(2))], 0.1))
