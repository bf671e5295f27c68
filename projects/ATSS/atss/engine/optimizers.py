"""Optimizers that the device can tell to leave everything alone: fused ones, which read their attribute `found_inf`."""

import torch
from detectron2.solver.build import get_default_optimizer_params, maybe_add_gradient_clipping, reduce_param_groups

from ..errors import InputError


def build_optimizer(cfg, model):
    """SOLVER.OPTIMIZER with Detectron2's learning rates and weight decays by parameter, and its gradient clipping.

    SOLVER.BACKBONE_MULTIPLIER and LAYER_DECAY scale the rates of the backbone without its pyramid.
    """
    solver, is_sgd = cfg.SOLVER, cfg.SOLVER.OPTIMIZER == "SGD"
    params = get_default_optimizer_params(
        model, base_lr=solver.BASE_LR, bias_lr_factor=solver.BIAS_LR_FACTOR,
        # Not for SGD, whose groups of parameters in checkpoints are those that Detectron2 makes.
        weight_decay=None if is_sgd else solver.WEIGHT_DECAY,
        weight_decay_norm=solver.WEIGHT_DECAY_NORM, weight_decay_bias=solver.WEIGHT_DECAY_BIAS,
    )  # fmt: skip
    params = with_backbone_rates(params, model, solver.BACKBONE_MULTIPLIER, solver.LAYER_DECAY)
    if is_sgd:
        options = {"momentum": solver.MOMENTUM, "nesterov": solver.NESTEROV, "weight_decay": solver.WEIGHT_DECAY}
        optimizer = torch.optim.SGD(params, lr=solver.BASE_LR, fused=True, **options)
    else:
        optimizer = torch.optim.AdamW(params, lr=solver.BASE_LR, fused=True)
    return maybe_add_gradient_clipping(cfg, optimizer)


def with_backbone_rates(params, model, multiplier, layer_decay):
    """Parameter groups with the learning rates and weight decays of the backbone; the same ones if nothing changes.

    Args:
        params: groups of the model's parameters, with their "lr".
        model: whose `bottom_up`, the backbone under a pyramid, may tell the depths of its parameters, and those without
            weight decay.
        multiplier: factor of all rates of `bottom_up`.
        layer_decay: further factor per layer, counted from the last one: `layer_decay ** 1` there, as in BEiT (Bao et
            al. 2022); 1.0 for none.

    Raises:
        InputError: rates of a backbone that the model does not have, or whose layers are not known.
    """
    bottom_ups = (module for name, module in model.named_modules() if name.split(".")[-1] == "bottom_up")
    bottom_up = next(bottom_ups, None)  # under a pyramid, wherever that is
    if bottom_up is None and (multiplier, layer_decay) != (1, 1):
        raise InputError("SOLVER.BACKBONE_MULTIPLIER, SOLVER.LAYER_DECAY: the backbone has no pyramid; set them to 1.0")
    constant = bottom_up.without_weight_decay() if hasattr(bottom_up, "without_weight_decay") else set()
    depths = bottom_up.depths() if layer_decay != 1 else {}
    if multiplier == 1 and not constant and not depths:
        return params
    factors = {parameter: multiplier * layer_decay ** depths.get(parameter, 0) for parameter in bottom_up.parameters()}
    return reduce_param_groups(
        [
            {
                **group, "params": [parameter], "lr": group["lr"] * factors.get(parameter, 1.0),
                **({"weight_decay": 0.0} if parameter in constant else {}),
            }
            for group in params
            for parameter in group["params"]
        ]
    )  # fmt: skip


def make_skippable(optimizer):
    """Prepare an SGD or AdamW optimizer for steps that `found_inf` skips; again after it has loaded a state.

    Raises a ValueError if it has not been built with `fused=True`.
    """
    if not getattr(optimizer, "_step_supports_amp_scaling", False):
        raise ValueError(f"{type(optimizer).__name__}: build it with fused=True, so that the device can skip a step")
    for group in optimizer.param_groups:
        group["fused"], group["foreach"] = True, False  # a loaded state has the values that it was saved with
        for parameter in group["params"]:
            _prepare_state(optimizer.state, parameter, has_momentum=group.get("momentum", 0) != 0)


@torch.no_grad()
def _prepare_state(states, parameter, has_momentum):
    # A first step that is skipped would leave memory as it was allocated as momentum.
    if has_momentum and states[parameter].get("momentum_buffer") is None:
        states[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    # Fused kernels go through memory in order, and states keep the strides that they were saved with.
    for name, value in states.get(parameter, {}).items():
        if value.shape == parameter.shape and value.stride() != parameter.stride():
            states[parameter][name] = torch.empty_like(parameter).copy_(value)
