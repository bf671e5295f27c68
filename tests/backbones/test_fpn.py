import pytest
import torch
from detectron2.config import get_cfg
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_backbone

from atss import add_atss_config


def config(**resnets):
    cfg = get_cfg()
    add_atss_config(cfg)
    cfg.merge_from_file("configs/atss_R_50_FPN_1x.yaml")
    for key, value in resnets.items():
        cfg.MODEL.RESNETS[key] = value
    return cfg


def test_p6_comes_from_p5():
    backbone = build_backbone(config()).eval()
    seen = {}
    backbone.top_block.register_forward_pre_hook(lambda module, args: seen.update(input=args[0]))

    features = backbone(torch.randn(1, 3, 64, 96))

    assert list(features) == ["p3", "p4", "p5", "p6", "p7"]
    assert [tuple(f.shape) for f in features.values()] == [
        (1, 256, 8, 12), (1, 256, 4, 6), (1, 256, 2, 3), (1, 256, 1, 2), (1, 256, 1, 1)
    ]  # fmt: skip
    assert seen["input"] is features["p5"]
    assert [s.stride for s in backbone.output_shape().values()] == [8, 16, 32, 64, 128]


def test_stem_and_res2_are_frozen_and_batch_norm_is():
    backbone = build_backbone(config())

    trained = {name.split(".")[1] for name, p in backbone.named_parameters() if p.requires_grad and "bottom_up" in name}

    assert trained == {"res3", "res4", "res5"}
    assert not any(isinstance(m, torch.nn.modules.batchnorm._BatchNorm) for m in backbone.modules())


@pytest.mark.parametrize("depth, blocks", [(10, 4), (18, 8), (34, 16)])
def test_small_resnets_of_any_width(depth, blocks):
    cfg = config(DEPTH=depth, RES2_OUT_CHANNELS=8, STEM_OUT_CHANNELS=8, NORM="BN")
    cfg.MODEL.BACKBONE.NAME = "build_atss_small_resnet_fpn_backbone"
    cfg.MODEL.FPN.OUT_CHANNELS = 16

    backbone = build_backbone(cfg, ShapeSpec(channels=3))

    assert sum(len(stage) for stage in backbone.bottom_up.stages) == blocks
    assert backbone.bottom_up.output_shape()["res5"].channels == 64
    assert {f.shape[1] for f in backbone(torch.randn(2, 3, 32, 32)).values()} == {16}
