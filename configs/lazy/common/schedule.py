"""Factors of the learning rate. They are relative to `train.max_iter`: another number of iterations stretches them."""

from detectron2.config import LazyCall as L
from detectron2.solver import WarmupParamScheduler
from fvcore.common.param_scheduler import CosineParamScheduler, MultiStepParamScheduler


def multi_step(max_iter, steps):
    """A third of the rate for 500 iterations; at each of the steps a tenth of the rate before."""
    return L(WarmupParamScheduler)(
        scheduler=L(MultiStepParamScheduler)(
            values=[0.1**i for i in range(len(steps) + 1)], milestones=steps, num_updates=max_iter
        ),
        warmup_factor=1 / 3,
        warmup_length=500 / max_iter,
        warmup_method="constant",
    )


def cosine(max_iter, warmup_iters):
    """From a hundredth of the rate to all of it in `warmup_iters`, then along a half cosine to 0."""
    return L(WarmupParamScheduler)(
        scheduler=L(CosineParamScheduler)(start_value=1.0, end_value=0.0),
        warmup_factor=0.01,
        warmup_length=warmup_iters / max_iter,
        warmup_method="linear",
    )


lr_multiplier_1x = multi_step(90000, [60000, 80000])
lr_multiplier_2x = multi_step(180000, [120000, 160000])
