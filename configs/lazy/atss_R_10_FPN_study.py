"""The paper's study at half its size, minutes a row without a GPU: pictures of 128 pixels full of overlapping objects,
levels P2 to P6. Anchors have the same size in cells as the paper's.
"""

from .atss_R_10_FPN_demo import dataloader, model, optimizer, train
from .common.schedule import cosine

model.backbone.bottom_up.out_features = ["res2", "res3", "res4", "res5"]
model.backbone.out_channels = 32
model.in_features = ["p2", "p3", "p4", "p5", "p6"]
model.head.strides = [4, 8, 16, 32, 64]
model.head.num_convs = 1
model.head.cell_anchors.scale = 8.0

dataloader.train.dataset.names = "clutter_train"
dataloader.train.mapper.augmentations[0].update(short_edge_length=[128], max_size=128)
dataloader.test.dataset.names = "clutter_val"
dataloader.test.mapper.augmentations[0].update(min_size=128, max_size=128)

train.max_iter = 800
lr_multiplier = cosine(max_iter=800, warmup_iters=50)
