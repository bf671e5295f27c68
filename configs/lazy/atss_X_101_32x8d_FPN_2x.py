"""ResNeXt-101, 32 groups of 8: 44.8 AP on COCO minival."""

from .atss_R_101_FPN_2x import dataloader, lr_multiplier, model, optimizer, train

model.backbone.bottom_up.stages.update(num_groups=32, width_per_group=8, stride_in_1x1=False)
model.pixel_std = [57.375, 57.120, 58.395]  # of these weights
train.init_checkpoint = "detectron2://ImageNetPretrained/FAIR/X-101-32x8d.pkl"
train.allow_pickle = True  # the model zoo's
