"""Convolutions with the frozen batch normalization that follows them folded into their weights.

A frozen normalization is a factor and a shift per channel: in the weights they cost no pass over the feature map.
"""

import copy

import torch
from detectron2 import layers
from torch import Tensor, nn
from torch.nn import functional as F


class FoldedConv2d(layers.Conv2d):
    """Detectron2's Conv2d without bias and with frozen batch normalization, computed as one convolution."""

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = self.folded()
        x = F.conv2d(x, weight, bias, self.stride, self.padding, self.dilation, self.groups)
        return x if self.activation is None else self.activation(x)

    def folded(self) -> tuple[Tensor, Tensor]:
        """Weight (out_channels, in_channels / groups, H, W) and bias (out_channels,) of the one convolution."""
        scale = self.norm.weight * (self.norm.running_var + self.norm.eps).rsqrt()
        return self.weight * scale[:, None, None, None], self.norm.bias - self.norm.running_mean * scale


def fold_frozen_norms(module: nn.Module) -> nn.Module:
    """Make Detectron2's convolutions with frozen batch normalization `FoldedConv2d`, in place; returns the module.

    Parameters keep their names and values; outputs differ by rounding.
    """
    for layer in module.modules():
        if type(layer) is layers.Conv2d and isinstance(layer.norm, layers.FrozenBatchNorm2d) and layer.bias is None:
            layer.__class__ = FoldedConv2d  # the classes differ in `forward` alone
    return module


def for_inference(model: nn.Module) -> nn.Module:
    """A copy of a model in evaluation mode with weights folded once. It cannot load the checkpoints of the model."""
    model = copy.deepcopy(model).eval().requires_grad_(False)
    for layer in model.modules():
        if isinstance(layer, FoldedConv2d):
            weight, bias = layer.folded()
            layer.__class__ = layers.Conv2d
            layer.weight, layer.bias, layer.norm = nn.Parameter(weight, False), nn.Parameter(bias, False), None
    return model.to(memory_format=getattr(model, "memory_format", torch.preserve_format))
