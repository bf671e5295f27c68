"""Twice the schedule, the short side drawn from 640 to 800: 43.5 AP on COCO minival."""

from .atss_R_101_FPN_1x import dataloader, model, optimizer, train
from .common.schedule import lr_multiplier_2x as lr_multiplier

dataloader.train.mapper.augmentations[0].short_edge_length = [640, 800]
dataloader.train.mapper.augmentations[0].sample_style = "range"
train.max_iter = 180000
