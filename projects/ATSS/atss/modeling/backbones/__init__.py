"""Backbones that Detectron2 lacks; importing this registers them."""

from .fpn import build_atss_resnet_fpn_backbone, build_atss_small_resnet_fpn_backbone
from .mobilenet import build_mobilenetv2_fpn_backbone
from .timm import build_timm_fpn_backbone

__all__ = [
    "build_atss_resnet_fpn_backbone",
    "build_atss_small_resnet_fpn_backbone",
    "build_mobilenetv2_fpn_backbone",
    "build_timm_fpn_backbone",
]
