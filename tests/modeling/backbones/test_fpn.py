import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_backbone, build_resnet_backbone
from torch import nn

from tests.helpers import paper_config


def small_config(**resnets):
    cfg = paper_config(**resnets)
    cfg.MODEL.BACKBONE.NAME = "build_atss_small_resnet_fpn_backbone"
    return cfg


def test_p6_comes_from_p5():
    backbone = build_backbone(paper_config()).eval()
    seen = {}
    backbone.top_block.register_forward_pre_hook(lambda module, args: seen.update(input=args[0]))

    features = backbone(torch.randn(1, 3, 64, 96))

    assert list(features) == ["p3", "p4", "p5", "p6", "p7"]
    assert [tuple(f.shape) for f in features.values()] == [
        (1, 256, 8, 12), (1, 256, 4, 6), (1, 256, 2, 3), (1, 256, 1, 2), (1, 256, 1, 1)
    ]  # fmt: skip
    assert seen["input"] is features["p5"]
    assert [s.stride for s in backbone.output_shape().values()] == [8, 16, 32, 64, 128]


@pytest.mark.parametrize("relu", [True, False])
def test_p7_comes_from_p6_with_or_without_a_relu(relu):
    cfg = paper_config()
    cfg.MODEL.ATSS.RELU_BEFORE_P7 = relu
    top = build_backbone(cfg).top_block
    p5 = torch.randn(1, 256, 4, 4)

    p6, p7 = top(p5)

    assert (p6 < 0).any() and torch.equal(p7, top.p7(p6.clamp(min=0) if relu else p6))


def test_the_stem_res2_and_batch_norm_are_frozen():
    backbone = build_backbone(paper_config())

    trained = {name.split(".")[1] for name, p in backbone.named_parameters() if p.requires_grad and "bottom_up" in name}

    assert trained == {"res3", "res4", "res5"}
    assert not any(isinstance(m, torch.nn.modules.batchnorm._BatchNorm) for m in backbone.modules())


@pytest.mark.parametrize("depth, blocks", [(10, 4), (18, 8), (34, 16)])
def test_small_resnets_of_any_width(depth, blocks):
    cfg = small_config(DEPTH=depth, RES2_OUT_CHANNELS=8, STEM_OUT_CHANNELS=8, NORM="BN")
    cfg.MODEL.FPN.OUT_CHANNELS = 16

    backbone = build_backbone(cfg, ShapeSpec(channels=3))

    assert sum(len(stage) for stage in backbone.bottom_up.stages) == blocks
    assert backbone.bottom_up.output_shape()["res5"].channels == 64
    assert {f.shape[1] for f in backbone(torch.randn(2, 3, 32, 32)).values()} == {16}


def test_basic_blocks_are_detectron2s():
    cfg = small_config(DEPTH=34, RES2_OUT_CHANNELS=64, NORM="BN")
    ours, theirs = (build(cfg, ShapeSpec(channels=3)) for build in (build_backbone, build_resnet_backbone))

    def layers(model):
        return [(name, m.weight.shape, m.stride) for name, m in model.named_modules() if isinstance(m, nn.Conv2d)]

    assert layers(ours.bottom_up) == layers(theirs)


def test_an_unknown_depth_of_a_small_resnet_is_an_error():
    with pytest.raises(ValueError, match=r"MODEL.RESNETS.DEPTH: expected one of \[10, 18, 34\], got 11"):
        build_backbone(small_config(DEPTH=11), ShapeSpec(channels=3))
