"""Deformable convolutions that run on every device, in training and at inference (Dai et al. 2017, Zhu et al. 2019).

Detectron2's own need its compiled part and a GPU. These differ from them in nothing but what computes them, so weights
of either load into the other.
"""

import torch
from detectron2 import layers
from torch import nn
from torchvision.ops import deform_conv2d


class DeformConv(layers.DeformConv):
    """Convolution whose taps are moved by `offset`: DCNv1. Arguments are Detectron2's."""

    def forward(self, x, offset):
        """Convolve.

        Args:
            x: (N, in_channels, H, W).
            offset: (N, 2 T G, H', W'): for each of G groups of channels and each of T taps, y and x in pixels.

        Returns:
            (N, out_channels, H', W'), after normalisation and activation where the layer has them.
        """
        return convolve(self, x, offset)


class ModulatedDeformConv(layers.ModulatedDeformConv):
    """The same with a factor for every tap: DCNv2. Arguments are Detectron2's."""

    def forward(self, x, offset, mask):
        """Convolve: `x`, `offset` and result as in `DeformConv`, `mask` (N, T G, H', W') from 0 to 1."""
        return convolve(self, x, offset, mask)


def convolve(layer, x, offset, mask=None):
    weight = layer.weight
    # In the weights' precision, also under mixed precision: half of it exists on few devices, and places need more.
    x, offset, mask = (None if t is None else t.to(weight.dtype) for t in (x, offset, mask))
    with torch.autocast(x.device.type, enabled=False):
        x = deform_conv2d(x, offset, weight, layer.bias, layer.stride, layer.padding, layer.dilation, mask)
    return finish(layer, x)


def finish(layer, x):
    """Normalisation and activation, where a layer has them."""
    x = x if layer.norm is None else layer.norm(x)
    return x if layer.activation is None else layer.activation(x)


PORTABLE = {layers.DeformConv: DeformConv, layers.ModulatedDeformConv: ModulatedDeformConv}


def make_portable(module):
    """Let the deformable layers of Detectron2 in a module run everywhere; returns it, its parameters untouched."""
    for layer in module.modules():
        # Nothing but `forward` differs.
        layer.__class__ = PORTABLE.get(type(layer), type(layer))
    return module


class DeformableConv2d(nn.Module):
    """A 3x3 convolution that predicts its own offsets and factors (DCNv2).

    Args:
        in_channels, out_channels: of the feature maps.
        norm: normalisation after it, a module, or None.
        activation: function after that, or None.
    """

    def __init__(self, in_channels, out_channels, norm=None, activation=None):
        super().__init__()
        # y and x for each of nine taps, then their factors.
        self.offset = nn.Conv2d(in_channels, 27, 3, padding=1)
        self.conv = ModulatedDeformConv(in_channels, out_channels, 3, padding=1)
        self.norm = norm
        self.activation = activation

    def forward(self, x):
        """(N, in_channels, H, W) -> (N, out_channels, H, W)."""
        offset, mask = self.offset(x).split([18, 9], dim=1)
        return finish(self, self.conv(x, offset, mask.sigmoid()))
