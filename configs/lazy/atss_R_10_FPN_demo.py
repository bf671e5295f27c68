"""A small model that learns the generated pictures from random weights in minutes, on two CPU cores."""

from detectron2.config import LazyCall as L

from atss.backbones.resnet import make_basic_stages

from .common.data import dataloader
from .common.model import model
from .common.optim import AdamW as optimizer
from .common.schedule import cosine
from .common.train import train

model.pixel_std = [57.375, 57.12, 58.395]
model.backbone.bottom_up.stem.update(out_channels=16, norm="BN")
model.backbone.bottom_up.stages = L(make_basic_stages)(
    depth=10, in_channels="${..stem.out_channels}", out_channels=16, norm="${..stem.norm}"
)
model.backbone.bottom_up.freeze_at = 0
model.backbone.out_channels = 64
model.head.num_convs = 2
model.head.cell_anchors.scale = 4.0
model.head.num_classes = 6

dataloader.train.dataset.update(names="shapes_train", filter_empty=False)
dataloader.train.mapper.augmentations[0].update(short_edge_length=[160], max_size=192)
dataloader.train.total_batch_size = 8
dataloader.train.num_workers = 0  # such small pictures cost less to read than to hand over
dataloader.test.dataset.names = "shapes_val"
dataloader.test.mapper.augmentations[0].update(min_size=160, max_size=192)

train.max_iter = 1100
train.eval_period = 0
lr_multiplier = cosine(max_iter=1100, warmup_iters=100)
