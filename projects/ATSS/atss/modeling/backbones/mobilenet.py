"""MobileNetV2 (Sandler et al. 2018, arXiv 1801.04381) as OpenVINO Training Extensions has it."""

from itertools import islice

from detectron2.config import CfgNode
from detectron2.layers import FrozenBatchNorm2d, ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from detectron2.modeling.backbone import FPN
from torch import Tensor, nn
from torchvision.models import mobilenet_v2
from torchvision.ops import Conv2dNormActivation

from .fpn import with_fpn

# Layers of torchvision's model that make a stage, and channels of its feature map. Every stage halves height and width.
STAGES = {"stem": (2, 16), "res2": (2, 24), "res3": (3, 32), "res4": (7, 96), "res5": (4, 320)}


@BACKBONE_REGISTRY.register()
def build_mobilenetv2_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """`MobileNetV2` and FPN with outputs p3 to p7.

    Args:
        cfg: reads MODEL.FPN, MODEL.BACKBONE.FREEZE_AT and MODEL.ATSS.RELU_BEFORE_P7.
        input_shape: of the image.
    """
    return with_fpn(cfg, MobileNetV2(freeze_at=cfg.MODEL.BACKBONE.FREEZE_AT))


class MobileNetV2(Backbone):
    """Feature maps of strides 4 to 32 of MobileNetV2, named res2 to res5 as those of ResNets.

    Its first inverted residual begins with a 1x1 convolution, as all others do. The paper, torchvision and timm omit it
    there because the number of channels stays the same.

    Args:
        freeze_at: 0 to train all layers, 1 to freeze the stem, n the stages up to res<n>, too.
    """

    def __init__(self, *, freeze_at: int = 0):
        super().__init__()
        layers = iter(mobilenet_v2().features)
        for name, (number, _) in STAGES.items():
            self.add_module(name, nn.Sequential(*islice(layers, number)))
        expansion = Conv2dNormActivation(32, 32, kernel_size=1, activation_layer=nn.ReLU6)
        nn.init.kaiming_normal_(expansion[0].weight, mode="fan_out")
        self.stem[1].conv.insert(0, expansion)

        for name in list(STAGES)[:freeze_at]:
            self.get_submodule(name).requires_grad_(False)
            self.set_submodule(name, FrozenBatchNorm2d.convert_frozen_batchnorm(self.get_submodule(name)))
        self._out_features = list(STAGES)[1:]
        self._out_feature_channels = {name: STAGES[name][1] for name in self._out_features}
        self._out_feature_strides = {name: 2 ** int(name[3:]) for name in self._out_features}

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Images (N, 3, H, W), H and W multiples of 32 -> feature maps (N, C_l, H / stride, W / stride) by name."""
        features = {}
        for name, stage in self.named_children():
            x = features[name] = stage(x)
        return {name: features[name] for name in self._out_features}
