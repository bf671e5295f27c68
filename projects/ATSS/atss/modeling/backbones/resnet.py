"""Stages of ResNets from plain arguments: thin ones that Detectron2 does not have, and those that differ by stage."""

from detectron2.modeling.backbone.resnet import BasicBlock, BottleneckBlock, DeformBottleneckBlock, ResNet

from .deformable import make_portable

# Blocks a stage by depth: of basic blocks, and of bottlenecks.
BASIC_BLOCKS = {10: (1, 1, 1, 1), 18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}
BOTTLENECK_BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


def make_basic_stages(depth, in_channels, out_channels, norm):
    """Stages res2 to res5 of a ResNet of basic blocks, which may be thinner than Detectron2 allows.

    Args:
        depth: 10, 18 or 34.
        in_channels: of the feature map that the stem gives.
        out_channels: of res2; every further stage has twice as many.
        norm: normalisation, a name of Detectron2's.

    Returns:
        list of four lists of blocks, for Detectron2's `ResNet`.
    """
    stages = []
    for stage, num_blocks in enumerate(blocks_of(depth, BASIC_BLOCKS)):
        channels = {"in_channels": in_channels, "out_channels": out_channels * 2**stage}
        strides = strides_of(stage, num_blocks)
        stages.append(ResNet.make_stage(BasicBlock, num_blocks, stride_per_block=strides, norm=norm, **channels))
        in_channels = channels["out_channels"]
    return stages


def make_bottleneck_stages(
    depth,
    in_channels=64,
    out_channels=256,
    norm="FrozenBN",
    num_groups=1,
    width_per_group=64,
    stride_in_1x1=True,
    deform_on_per_stage=(False, False, False, False),
    deform_modulated=True,
):
    """Stages res2 to res5 of a ResNet or ResNeXt, with deformable layers that run on every device.

    Args:
        depth: 50, 101 or 152.
        in_channels: of the feature map that the stem gives.
        out_channels: of res2; every further stage has twice as many.
        norm: normalisation, a name of Detectron2's.
        num_groups, width_per_group: of the 3x3 convolutions of res2, whose channels are the product; every further
            stage has twice as many channels in as many groups.
        stride_in_1x1: whether the first 1x1 convolution of a stage has its stride, or the 3x3.
        deform_on_per_stage: for each stage, whether its 3x3 convolutions are deformable.
        deform_modulated: whether those weigh their taps (DCNv2).

    Returns:
        list of four lists of blocks, for Detectron2's `ResNet`.
    """
    stages = []
    for stage, num_blocks in enumerate(blocks_of(depth, BOTTLENECK_BLOCKS)):
        options = {
            "in_channels": in_channels,
            "out_channels": out_channels * 2**stage,
            "bottleneck_channels": num_groups * width_per_group * 2**stage,
            "stride_per_block": strides_of(stage, num_blocks),
            "num_groups": num_groups,
            "stride_in_1x1": stride_in_1x1,
            "norm": norm,
        }
        block = BottleneckBlock
        if deform_on_per_stage[stage]:
            block, options["deform_modulated"] = DeformBottleneckBlock, deform_modulated
        stages.append([make_portable(b) for b in ResNet.make_stage(block, num_blocks, **options)])
        in_channels = options["out_channels"]
    return stages


def blocks_of(depth, known):
    """Blocks a stage of a ResNet of this depth; a ValueError where `known` has none."""
    if depth not in known:
        raise ValueError(f"depth: expected one of {', '.join(map(str, known))}, got {depth}")
    return known[depth]


def strides_of(stage, num_blocks):
    """Stride of every block of a stage: the first halves the feature map, except in res2."""
    return [1 if stage == 0 else 2] + [1] * (num_blocks - 1)
