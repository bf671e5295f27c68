"""Feature pyramids whose P6 and P7 are computed from P5."""

from detectron2.modeling import BACKBONE_REGISTRY
from detectron2.modeling.backbone import FPN, build_resnet_backbone
from detectron2.modeling.backbone.fpn import LastLevelP6P7
from detectron2.modeling.backbone.resnet import BasicStem, ResNet
from torch.nn import functional as F

from .deformable import make_portable
from .resnet import make_basic_stages


@BACKBONE_REGISTRY.register()
def build_atss_resnet_fpn_backbone(cfg, input_shape):
    """ResNet and FPN with levels P3 to P7 (section 4.1); Detectron2's own RetinaNet backbone takes P6 from C5.

    Its deformable layers (MODEL.RESNETS.DEFORM_ON_PER_STAGE) run on every device.

    Args:
        cfg: reads MODEL.RESNETS, MODEL.FPN and MODEL.BACKBONE.FREEZE_AT as Detectron2's builders do, and
            MODEL.ATSS.RELU_BEFORE_P7.
        input_shape: `ShapeSpec` of the image.

    Returns:
        a backbone with outputs p3 to p7.
    """
    return with_fpn(cfg, make_portable(build_resnet_backbone(cfg, input_shape)))


@BACKBONE_REGISTRY.register()
def build_atss_small_resnet_fpn_backbone(cfg, input_shape):
    """The same on a ResNet of basic blocks that may be thinner than Detectron2 allows, for training without a GPU.

    Args:
        cfg: MODEL.RESNETS.DEPTH is 10, 18 or 34, RES2_OUT_CHANNELS the width; the rest as above.
        input_shape: `ShapeSpec` of the image.

    Returns:
        a backbone with outputs p3 to p7.
    """
    resnets = cfg.MODEL.RESNETS
    stem = BasicStem(input_shape.channels, resnets.STEM_OUT_CHANNELS, norm=resnets.NORM)
    stages = make_basic_stages(resnets.DEPTH, stem.out_channels, resnets.RES2_OUT_CHANNELS, resnets.NORM)
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
    """P6 from P5 and P7 from P6, by convolutions of stride 2.

    Args:
        channels: of all of them.
        relu: whether P7 sees P6 after a ReLU.
    """

    def __init__(self, channels, relu=True):
        super().__init__(channels, channels, in_feature="p5")
        self.relu = relu

    def forward(self, p5):
        """(N, channels, H, W) -> list of P6 and P7."""
        p6 = self.p6(p5)
        return [p6, self.p7(F.relu(p6) if self.relu else p6)]
