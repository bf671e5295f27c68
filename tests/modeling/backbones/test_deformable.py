"""Deformable convolutions against the sum that defines them, value by value and gradient by gradient."""

import math
from itertools import product

import pytest
import torch
from detectron2 import layers
from detectron2.modeling import build_backbone
from torch import nn

from atss.modeling.backbones.deformable import DeformableConv2d, DeformConv, ModulatedDeformConv, make_portable
from tests.helpers import paper_config


def bilinear(image, y, x):
    """Value of (H, W) at a point, 0 outside, as a differentiable sum over the four pixels around."""
    top, left = math.floor(y.item()), math.floor(x.item())
    return sum(
        (1 - (y - row).abs()) * (1 - (x - column).abs()) * image[row, column]
        for row, column in product((top, top + 1), (left, left + 1))
        if 0 <= row < image.shape[0] and 0 <= column < image.shape[1]
    )


def naive(x, offset, mask, weight, bias, stride, dilation, groups, offset_groups):
    """3x3, padded by `dilation`: the sum over channels and taps at every place."""
    n, channels, height, width = x.shape
    rows, columns = (height - 1) // stride + 1, (width - 1) // stride + 1
    out = []
    for image, o, i, j in product(range(n), range(len(weight)), range(rows), range(columns)):
        first = o // (len(weight) // groups) * weight.shape[1]
        total = torch.zeros((), dtype=x.dtype) if bias is None else bias[o]
        for c, tap in product(range(weight.shape[1]), range(9)):
            group = (first + c) // (channels // offset_groups)
            place = 2 * (9 * group + tap)
            y = (i * stride - dilation + tap // 3 * dilation) + offset[image, place, i, j]
            z = (j * stride - dilation + tap % 3 * dilation) + offset[image, place + 1, i, j]
            factor = 1 if mask is None else mask[image, 9 * group + tap, i, j]
            total = total + weight[o, c, tap // 3, tap % 3] * factor * bilinear(x[image, first + c], y, z)
        out.append(total)
    return torch.stack(out).view(n, len(weight), rows, columns)


@pytest.mark.parametrize("modulated", [True, False])
@pytest.mark.parametrize("stride, dilation, groups, offset_groups", [(1, 1, 1, 1), (2, 1, 2, 1), (1, 2, 1, 2)])
def test_values_and_gradients(modulated, stride, dilation, groups, offset_groups):
    torch.manual_seed(stride + 2 * dilation + 4 * groups)
    layer_class, bias = (ModulatedDeformConv, True) if modulated else (DeformConv, False)
    layer = layer_class(
        4, 2, 3, stride, dilation, dilation, groups, deformable_groups=offset_groups, bias=bias
    ).double()
    size = (4 - 1) // stride + 1, (5 - 1) // stride + 1
    x = torch.randn(1, 4, 4, 5, dtype=torch.float64, requires_grad=True)
    offset = (1.5 * torch.randn(1, 18 * offset_groups, *size, dtype=torch.float64)).requires_grad_()
    mask = torch.rand(1, 9 * offset_groups, *size, dtype=torch.float64, requires_grad=True) if modulated else None
    inputs = [t for t in (x, offset, mask) if t is not None]
    leaves = [*inputs, *layer.parameters()]
    if bias:
        nn.init.normal_(layer.bias)

    found = layer(*inputs)
    expected = naive(x, offset, mask, layer.weight, layer.bias, stride, dilation, groups, offset_groups)
    up = torch.randn_like(found)

    torch.testing.assert_close(found, expected)
    ours, theirs = (torch.autograd.grad((value * up).sum(), leaves) for value in (found, expected))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b)


def test_without_offsets_and_with_factors_of_one_it_is_a_convolution():
    layer = ModulatedDeformConv(3, 5, 3, padding=1)
    x = torch.randn(2, 3, 6, 7)

    found = layer(x, torch.zeros(2, 18, 6, 7), torch.ones(2, 9, 6, 7))

    torch.testing.assert_close(found, nn.functional.conv2d(x, layer.weight, layer.bias, padding=1))


def test_the_layer_of_the_towers_predicts_its_offsets():
    layer = DeformableConv2d(4, 6, norm=nn.GroupNorm(2, 6), activation=torch.relu)
    x = torch.randn(2, 4, 5, 6)

    both = layer.offset(x)
    expected = layer.norm(layer.conv(x, both[:, :18], both[:, 18:].sigmoid())).clamp(min=0)

    assert torch.equal(layer(x), expected) and expected.shape == (2, 6, 5, 6)
    layer(x).square().sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in layer.parameters())


def test_mixed_precision():
    layer, x = DeformableConv2d(4, 6), torch.randn(2, 4, 5, 6)

    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = layer(x)
        found.float().square().sum().backward()

    torch.testing.assert_close(found.float(), layer(x), rtol=0.05, atol=0.05)
    assert all(p.grad.isfinite().all() for p in layer.parameters())


@pytest.mark.parametrize(
    "ours, theirs", [(DeformConv, layers.DeformConv), (ModulatedDeformConv, layers.ModulatedDeformConv)]
)
def test_weights_load_from_detectron2s_layers_and_into_them(ours, theirs):
    pair = ours(4, 6, 3, padding=1, norm=nn.BatchNorm2d(6)), theirs(4, 6, 3, padding=1, norm=nn.BatchNorm2d(6))

    for a, b in (pair, pair[::-1]):
        a.load_state_dict(b.state_dict())
        assert a.state_dict().keys() == b.state_dict().keys()


@pytest.mark.parametrize("modulated", [True, False])
def test_backbones_with_deformable_stages_run_and_learn_here(modulated):
    cfg = paper_config(DEFORM_ON_PER_STAGE=[False, False, True, True], DEFORM_MODULATED=modulated)
    backbone = build_backbone(cfg)

    deformable = {name: m for name, m in backbone.named_modules() if isinstance(m, (DeformConv, ModulatedDeformConv))}
    sum(f.square().mean() for f in backbone(torch.randn(1, 3, 64, 64)).values()).backward()

    assert {name.split(".")[1] for name in deformable} == {"res4", "res5"} and len(deformable) == 6 + 3
    assert all(m.weight.grad.abs().sum() > 0 for m in deformable.values())
    assert not any(type(m) in (layers.DeformConv, layers.ModulatedDeformConv) for m in backbone.modules())


def test_a_module_made_portable_keeps_its_parameters():
    module = nn.Sequential(layers.ModulatedDeformConv(2, 2, 3), nn.Conv2d(2, 2, 1))
    before = dict(module.named_parameters())

    assert make_portable(module) is module

    assert type(module[0]) is ModulatedDeformConv and type(module[1]) is nn.Conv2d
    assert all(p is before[name] for name, p in module.named_parameters())
