"""Deformable convolutions in C3 to C5 and in the towers: 43.2 AP on COCO minival."""

from .atss_R_50_FPN_1x import dataloader, lr_multiplier, model, optimizer, train

model.backbone.bottom_up.stages.deform_on_per_stage = [False, True, True, True]
model.head.deformable = True
