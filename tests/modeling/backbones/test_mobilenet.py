"""MobileNetV2: its feature maps, its first block, and what of it learns."""

import pytest
import torch
from detectron2.modeling import build_backbone, build_model
from detectron2.structures import Boxes, Instances
from torch import nn
from torchvision.models import mobilenet_v2

from atss.config import load_config
from atss.modeling.backbones.mobilenet import MobileNetV2
from tests.helpers import DEMO_CONFIG, TINY, pairs, paper_config


def test_feature_maps_of_strides_4_to_32():
    maps = MobileNetV2()(torch.randn(2, 3, 64, 96))

    assert {name: tuple(x.shape[1:]) for name, x in maps.items()} == {
        "res2": (24, 16, 24), "res3": (32, 8, 12), "res4": (96, 4, 6), "res5": (320, 2, 3),
    }  # fmt: skip


@pytest.mark.slow
def test_a_detector_on_it_trains(shapes):
    backbone = {"MODEL.BACKBONE.NAME": "build_mobilenetv2_fpn_backbone", "MODEL.BACKBONE.FREEZE_AT": 0}
    cfg = load_config(DEMO_CONFIG, pairs({**TINY, **shapes, **backbone}))
    model = build_model(cfg).train()
    instances = Instances((64, 96), gt_boxes=Boxes(torch.tensor([[5.0, 8, 60, 50]])), gt_classes=torch.tensor([3]))

    sum(model([{"image": torch.rand(3, 64, 96) * 255, "instances": instances}] * 2).values()).backward()

    assert all(p.grad is not None for p in model.parameters())
    assert model.backbone.bottom_up.stem[0][1].running_mean.abs().sum() > 0


def test_without_its_first_convolution_it_is_torchvisions():
    ours, theirs = MobileNetV2().eval(), mobilenet_v2().features[:-1].eval()
    del ours.stem[1].conv[0]
    ours.load_state_dict(dict(zip(ours.state_dict(), theirs.state_dict().values(), strict=True)))
    x = torch.randn(1, 3, 64, 64)

    torch.testing.assert_close(ours(x)["res5"], theirs(x))


def test_the_pyramid_freezes_stages_and_their_normalizations():
    cfg = paper_config()
    cfg.MODEL.BACKBONE.NAME, cfg.MODEL.BACKBONE.FREEZE_AT = "build_mobilenetv2_fpn_backbone", 2

    backbone = build_backbone(cfg)

    frozen = {name.split(".")[1] for name, p in backbone.named_parameters() if not p.requires_grad}
    learned = {name.split(".")[1] for name, p in backbone.named_parameters() if p.requires_grad}
    assert frozen == {"stem", "res2"} and {"res3", "res4", "res5"} <= learned and not learned & frozen
    normalizations = [name for name, m in backbone.named_modules() if isinstance(m, nn.BatchNorm2d)]
    assert normalizations and all(name.split(".")[1] in ("res3", "res4", "res5") for name in normalizations)
    assert list(backbone(torch.randn(1, 3, 64, 64))) == ["p3", "p4", "p5", "p6", "p7"]
