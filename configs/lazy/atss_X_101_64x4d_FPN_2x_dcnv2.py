"""Deformable convolutions in C4, C5 and in the towers: 47.7 AP on COCO minival.

The scales of multi-scale testing stand in the yaml config of this name, which train_net.py and the demo read.
"""

from .atss_X_101_64x4d_FPN_2x import dataloader, lr_multiplier, model, optimizer, train

model.backbone.bottom_up.stages.deform_on_per_stage = [False, False, True, True]
model.head.deformable = True
