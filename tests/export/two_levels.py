"""A detector of two levels that is exported in seconds."""

import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import Backbone
from torch import nn

from atss.modeling.anchors import make_cell_anchors
from atss.modeling.box_coding import BoxCoding
from atss.modeling.detector import ATSS
from atss.modeling.head import ATSSHead
from atss.modeling.inference import BoxSelector

STRIDES, CHANNELS, NUM_CLASSES = [8, 16], 64, 3


class TwoLevels(Backbone):
    """Feature maps of strides 8 and 16."""

    size_divisibility = 16

    def __init__(self):
        super().__init__()
        self.p3 = nn.Conv2d(3, CHANNELS, 8, stride=8)
        self.p4 = nn.Conv2d(CHANNELS, CHANNELS, 3, stride=2, padding=1)

    def forward(self, x):
        p3 = self.p3(x).relu()
        return {"p3": p3, "p4": self.p4(p3)}

    def output_shape(self):
        return {f"p{i + 3}": ShapeSpec(channels=CHANNELS, stride=stride) for i, stride in enumerate(STRIDES)}


def make_detector(selector=None, ratios=(1.0,), **head):
    """An `ATSS` with random weights whose scores lie far apart, always the same.

    `selector` holds arguments for `BoxSelector`, `ratios` are of the anchors of a cell, `head` is for `ATSSHead`.
    """
    with torch.random.fork_rng():
        torch.manual_seed(0)
        options = {
            "in_channels": CHANNELS,
            "strides": STRIDES,
            "num_classes": NUM_CLASSES,
            "cell_anchors": make_cell_anchors(STRIDES, 3.0, ratios),
            "anchor_offset": 0.5,
            "assigner": None,
            "box_coding": BoxCoding(),
            "box_selector": BoxSelector(**{"max_detections": 20, **(selector or {})}),
            "num_convs": 1,
            "prior_prob": 0.1,
            **head,
        }
        pixels = {"pixel_mean": [103.5, 116.3, 123.7], "pixel_std": [57.4, 57.1, 58.4]}
        detector = ATSS(backbone=TwoLevels(), head=ATSSHead(**options), in_features=["p3", "p4"], **pixels)
        for layer, std in (("class_logits", 0.15), ("box_deltas", 0.1), ("centerness", 0.1)):
            if getattr(detector.head, layer) is not None:
                nn.init.normal_(getattr(detector.head, layer).weight, std=std)
    return detector.eval()
