"""Deformable convolutions in C4, C5 and in the towers: 47.7 AP on COCO minival."""

from .atss_X_101_32x8d_FPN_2x import dataloader, lr_multiplier, model, optimizer, train

model.backbone.bottom_up.stages.deform_on_per_stage = [False, False, True, True]
model.head.deformable = True
