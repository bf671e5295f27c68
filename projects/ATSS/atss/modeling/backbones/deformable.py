"""Deformable convolutions that run on every device, in training and at inference (Dai et al. 2017, Zhu et al. 2019).

Detectron2's need its compiled extension and a GPU. These have the same parameters and use torchvision's operator.
"""

import torch
from detectron2 import layers
from torch import nn
from torchvision.ops import deform_conv2d


class Portable:
    """The forward pass of both layers."""

    def forward(self, x, offset, mask=None):
        """Convolve with sampling points moved by `offset`, then normalise and activate if the layer does.

        Args:
            x: (N, in_channels, H, W).
            offset: (N, 2 * T * G, H', W'), y and x in pixels for each of T kernel positions and G groups of channels.
            mask: (N, T * G, H', W'), a factor from 0 to 1 per sampling point (DCNv2).

        Returns:
            (N, out_channels, H', W').
        """
        # In the precision of the weights, even under autocast: offsets need it, and few devices have a half kernel.
        x, offset, mask = (None if value is None else value.to(self.weight.dtype) for value in (x, offset, mask))
        with torch.autocast(x.device.type, enabled=False):
            x = deform_conv2d(x, offset, self.weight, self.bias, self.stride, self.padding, self.dilation, mask)
        return finish(self, x)


class DeformConv(Portable, layers.DeformConv):
    """Deformable convolution (DCNv1), with Detectron2's arguments."""


class ModulatedDeformConv(Portable, layers.ModulatedDeformConv):
    """Modulated deformable convolution (DCNv2), with Detectron2's arguments."""


def finish(layer, x):
    """Normalise and activate, if the layer does."""
    x = x if layer.norm is None else layer.norm(x)
    return x if layer.activation is None else layer.activation(x)


PORTABLE = {layers.DeformConv: DeformConv, layers.ModulatedDeformConv: ModulatedDeformConv}


def make_portable(module):
    """Replace the class of Detectron2's deformable layers in a module, in place; returns the module."""
    for layer in module.modules():
        # The classes differ in `forward` alone.
        layer.__class__ = PORTABLE.get(type(layer), type(layer))
    return module


class DeformableConv2d(nn.Module):
    """3x3 convolution with predicted offsets and modulation (DCNv2).

    Args:
        in_channels, out_channels: channels of the feature maps.
        norm: module that normalises the output, or None.
        activation: function applied last, or None.
    """

    def __init__(self, in_channels, out_channels, norm=None, activation=None):
        super().__init__()
        # y and x for each of nine kernel positions, then their factors.
        self.offset = nn.Conv2d(in_channels, 27, 3, padding=1)
        self.conv = ModulatedDeformConv(in_channels, out_channels, 3, padding=1)
        self.norm = norm
        self.activation = activation

    def forward(self, x):
        """(N, in_channels, H, W) -> (N, out_channels, H, W)."""
        offset, mask = self.offset(x).split([18, 9], dim=1)
        return finish(self, self.conv(x, offset, mask.sigmoid()))
