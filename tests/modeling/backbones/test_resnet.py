"""Stages from plain arguments are Detectron2's where it has them."""

import pytest
from detectron2.layers import DeformConv as Detectron2DeformConv
from detectron2.modeling.backbone.resnet import ResNet
from torch import nn

from atss.modeling.backbones.deformable import DeformConv, ModulatedDeformConv
from atss.modeling.backbones.resnet import make_basic_stages, make_bottleneck_stages


def layers(stages):
    """Name, shape of weights, stride and groups of every convolution."""
    modules = nn.ModuleList([nn.Sequential(*blocks) for blocks in stages]).named_modules()
    return [(name, m.weight.shape, m.stride, m.groups) for name, m in modules if isinstance(m, nn.Conv2d)]


@pytest.mark.parametrize("depth", [50, 101])
def test_bottlenecks_are_detectron2s(depth):
    theirs = ResNet.make_default_stages(depth, stride_in_1x1=True, norm="FrozenBN")

    assert layers(make_bottleneck_stages(depth)) == layers(theirs)


def test_basic_blocks_are_detectron2s():
    theirs = ResNet.make_default_stages(34, norm="BN")

    assert layers(make_basic_stages(34, in_channels=64, out_channels=64, norm="BN")) == layers(theirs)


def test_groups_and_their_width():
    stages = make_bottleneck_stages(50, num_groups=32, width_per_group=8, stride_in_1x1=False)

    assert [blocks[0].conv2.weight.shape[:2] for blocks in stages] == [(256, 8), (512, 16), (1024, 32), (2048, 64)]
    assert [blocks[0].conv1.stride for blocks in stages] == [(1, 1)] * 4
    assert [blocks[0].conv2.stride for blocks in stages] == [(1, 1), (2, 2), (2, 2), (2, 2)]


@pytest.mark.parametrize("modulated, kind", [(True, ModulatedDeformConv), (False, DeformConv)])
def test_deformable_stages_run_everywhere(modulated, kind):
    stages = make_bottleneck_stages(50, deform_on_per_stage=[False, True, False, True], deform_modulated=modulated)

    assert [{type(block.conv2) is kind for block in blocks} for blocks in stages] == [{False}, {True}, {False}, {True}]
    assert not any(type(m) is Detectron2DeformConv for blocks in stages for block in blocks for m in block.modules())


@pytest.mark.parametrize("make", [make_bottleneck_stages, make_basic_stages])
def test_a_depth_that_there_is_not(make):
    with pytest.raises(ValueError, match=r"depth: expected one of .*, got 11"):
        make(11, in_channels=64, out_channels=64, norm="BN")
