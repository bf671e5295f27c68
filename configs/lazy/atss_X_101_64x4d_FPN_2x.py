"""ResNeXt-101, 64 groups of 4: 45.5 AP on COCO minival."""

from .atss_R_101_FPN_2x import dataloader, lr_multiplier, model, optimizer, train

model.backbone.bottom_up.stages.update(num_groups=64, width_per_group=4, stride_in_1x1=False)
train.init_checkpoint = "catalog://ImageNetPretrained/FAIR/X-101-64x4d"
train.allow_pickle = True  # the model zoo's
