"""ResNets with feature pyramids whose P6 and P7 are computed from P5."""

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY
from detectron2.modeling.backbone import FPN, build_resnet_backbone
from detectron2.modeling.backbone.fpn import LastLevelP6P7
from detectron2.modeling.backbone.resnet import BasicBlock, BasicStem, ResNet
from torch.nn import functional as F

from .deformable import make_portable

# Basic blocks per stage, by depth.
BASIC_BLOCKS = {10: (1, 1, 1, 1), 18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}


@BACKBONE_REGISTRY.register()
def build_atss_resnet_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """ResNet and FPN with outputs p3 to p7 (section 4.1). Detectron2's RetinaNet backbone computes P6 from C5 instead.

    Deformable layers (MODEL.RESNETS.DEFORM_ON_PER_STAGE) run on every device.

    Args:
        cfg: reads MODEL.RESNETS, MODEL.FPN, MODEL.BACKBONE.FREEZE_AT and MODEL.ATSS.RELU_BEFORE_P7.
        input_shape: of the image.
    """
    return with_fpn(cfg, make_portable(build_resnet_backbone(cfg, input_shape)))


@BACKBONE_REGISTRY.register()
def build_atss_small_resnet_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """The same on a ResNet of basic blocks, which may be thinner than Detectron2 allows, for training without a GPU.

    Args:
        cfg: MODEL.RESNETS.DEPTH is 10, 18 or 34, RES2_OUT_CHANNELS the width; the rest as above.
        input_shape: of the image.

    Raises:
        ValueError: another depth.
    """
    resnets = cfg.MODEL.RESNETS
    if resnets.DEPTH not in BASIC_BLOCKS:
        raise ValueError(f"MODEL.RESNETS.DEPTH: expected one of {list(BASIC_BLOCKS)}, got {resnets.DEPTH}")
    stem = BasicStem(input_shape.channels, resnets.STEM_OUT_CHANNELS, norm=resnets.NORM)
    channels = [stem.out_channels, *(resnets.RES2_OUT_CHANNELS * 2**stage for stage in range(4))]
    stages = [
        ResNet.make_stage(
            BasicBlock,
            num_blocks,
            stride_per_block=[1 if stage == 0 else 2] + [1] * (num_blocks - 1),
            in_channels=channels[stage],
            out_channels=channels[stage + 1],
            norm=resnets.NORM,
        )
        for stage, num_blocks in enumerate(BASIC_BLOCKS[resnets.DEPTH])
    ]
    freeze_at = cfg.MODEL.BACKBONE.FREEZE_AT
    return with_fpn(cfg, ResNet(stem, stages, out_features=resnets.OUT_FEATURES, freeze_at=freeze_at))


def with_fpn(cfg, bottom_up):
    """FPN over `bottom_up`, with P6 and P7 from P5."""
    channels = cfg.MODEL.FPN.OUT_CHANNELS
    return FPN(
        bottom_up=bottom_up,
        in_features=cfg.MODEL.FPN.IN_FEATURES,
        out_channels=channels,
        norm=cfg.MODEL.FPN.NORM,
        top_block=P6P7(channels, relu=cfg.MODEL.ATSS.RELU_BEFORE_P7),
        fuse_type=cfg.MODEL.FPN.FUSE_TYPE,
    )


class P6P7(LastLevelP6P7):
    """P6 from P5 and P7 from P6, by convolutions of stride 2; `relu`: whether a ReLU precedes P7."""

    def __init__(self, channels: int, relu: bool = True):
        super().__init__(channels, channels, in_feature="p5")
        self.relu = relu

    def forward(self, p5):
        """(N, channels, H, W) -> list of P6 and P7."""
        p6 = self.p6(p5)
        return [p6, self.p7(F.relu(p6) if self.relu else p6)]
