"""The paper's optimizer, and one for small models from random weights. Whoever builds them sets `params.model`."""

import torch
from detectron2.config import LazyCall as L
from detectron2.solver.build import get_default_optimizer_params

# Biases learn twice as fast and do not decay.
SGD = L(torch.optim.SGD)(
    params=L(get_default_optimizer_params)(
        base_lr="${..lr}", weight_decay_norm="${..weight_decay}", bias_lr_factor=2.0, weight_decay_bias=0.0
    ),
    lr=0.01,
    momentum=0.9,
    weight_decay=0.0001,
)

AdamW = L(torch.optim.AdamW)(
    params=L(get_default_optimizer_params)(weight_decay_norm=0.0, weight_decay_bias=0.0),
    lr=0.0025,
    weight_decay=0.05,
    fused=True,
)
