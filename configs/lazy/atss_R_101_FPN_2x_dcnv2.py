"""Deformable convolutions in C3 to C5 and in the towers: 46.1 AP on COCO minival."""

from .atss_R_101_FPN_2x import dataloader, lr_multiplier, model, optimizer, train

model.backbone.bottom_up.stages.deform_on_per_stage = [False, True, True, True]
model.head.deformable = True
