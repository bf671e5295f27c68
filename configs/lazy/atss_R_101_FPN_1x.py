"""The paper's model on ResNet-101 and the short schedule, which mmdetection has published."""

from .atss_R_50_FPN_1x import dataloader, lr_multiplier, model, optimizer, train

model.backbone.bottom_up.stages.depth = 101
train.init_checkpoint = "detectron2://ImageNetPretrained/MSRA/R-101.pkl"
train.allow_pickle = True  # the model zoo's
