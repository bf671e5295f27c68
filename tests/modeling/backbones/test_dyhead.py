"""The dynamic head against its formulas, image by image, level by level, tap by tap, gradients included."""

import pytest
import torch
from detectron2.modeling import build_model
from torch import nn

from atss.errors import InputError
from atss.modeling.backbones.dyhead import DyHead
from tests.modeling.test_detector import image

DYHEAD = {"MODEL.ATSS.DYHEAD_BLOCKS": 1, "MODEL.ATSS.NUM_CONVS": 0, "MODEL.ATSS.PREDICTOR_KERNEL": 1}
SIZES = [(7, 10), (4, 5), (2, 3)]


def pyramid(images=2, channels=32, **options):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(images, channels, *size, generator=generator, **options) for size in SIZES]


def random_head(num_blocks=1, channels=32):
    """With values far from their initial ones, also for what begins as 0 or 1."""
    torch.manual_seed(0)
    head = DyHead(channels=channels, num_blocks=num_blocks)
    for parameter in head.parameters():
        nn.init.normal_(parameter, std=0.3)
    return head


def deformable(layer, x, offset, mask):
    """A map (C, H, W) convolved at moved places, and normalised in 16 groups."""
    stride, (height, width) = layer.stride, x.shape[1:]
    rows, columns = offset.shape[1:]
    total = layer.bias[:, None, None]
    for tap in range(9):
        y = torch.arange(rows)[:, None] * stride - 1 + tap // 3 + offset[2 * tap]
        z = torch.arange(columns) * stride - 1 + tap % 3 + offset[2 * tap + 1]
        top, left = y.detach().floor(), z.detach().floor()
        for i, j in ((0, 0), (0, 1), (1, 0), (1, 1)):
            row, column = top + i, left + j
            inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
            share = (1 - (y - row).abs()) * (1 - (z - column).abs()) * inside * mask[tap]
            values = x[:, row.clamp(0, height - 1).long(), column.clamp(0, width - 1).long()] * share
            total = total + torch.einsum("oc,chw->ohw", layer.weight[:, :, tap // 3, tap % 3], values)
    groups = total.unflatten(0, (16, -1))
    normal = (groups - groups.mean((1, 2, 3), True)) / (groups.var((1, 2, 3), False, keepdim=True) + 1e-5).sqrt()
    return normal.flatten(0, 1) * layer.norm.weight[:, None, None] + layer.norm.bias[:, None, None]


def upsampled(x, height, width):
    """Bilinear, the corners of both maps on each other."""
    y = torch.arange(height, dtype=x.dtype) * (x.shape[1] - 1) / (height - 1)
    z = torch.arange(width, dtype=x.dtype) * (x.shape[2] - 1) / (width - 1)
    rows = (1 - (y[:, None] - torch.arange(x.shape[1])).abs()).clamp(min=0)
    columns = (1 - (z[:, None] - torch.arange(x.shape[2])).abs()).clamp(min=0)
    return rows @ x @ columns.T


def hard_sigmoid(x):
    return ((x + 3) / 6).clamp(0, 1)


def naive(block, features):
    """The new map (C, H, W) of every level of one image."""
    new = []
    for level, x in enumerate(features):
        both = block.offset(x[None])[0]
        offset, mask = both[:18], both[18:].sigmoid()
        maps = [deformable(block.same, x, offset, mask)]
        if level > 0:
            maps.append(deformable(block.finer, features[level - 1], offset, mask))
        if level < len(features) - 1:
            coarse = features[level + 1]
            rows, columns = coarse.shape[1:]
            first = offset.reshape(-1)[: 18 * rows * columns].view(18, rows, columns)
            first_mask = mask.reshape(-1)[: 9 * rows * columns].view(9, rows, columns)
            maps.append(upsampled(deformable(block.coarser, coarse, first, first_mask), *x.shape[1:]))
        scaled = [
            m * hard_sigmoid((block.scale.weight[0] @ m.mean((1, 2)) + block.scale.bias).clamp(min=0)) for m in maps
        ]
        mean = sum(scaled) / len(scaled)
        hidden = (block.relu.squeeze.weight @ mean.mean((1, 2)) + block.relu.squeeze.bias).clamp(min=0)
        lines = hard_sigmoid(block.relu.expand.weight @ hidden + block.relu.expand.bias) - 0.5
        a, b, other_a, other_b = lines[:, None, None].chunk(4)
        new.append(torch.maximum((2 * a + 1) * mean + b, 2 * other_a * mean + other_b))
    return new


def test_values_and_gradients():
    head = random_head(num_blocks=2).double()
    features = pyramid(dtype=torch.float64)
    leaves = [*(feature.requires_grad_() for feature in features), *head.parameters()]

    found = head(features)
    expected = []
    for n in range(2):
        maps = [feature[n] for feature in features]
        for block in head.blocks:
            maps = naive(block, maps)
        expected.append(maps)
    expected = [torch.stack(maps) for maps in zip(*expected, strict=True)]

    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs)
    up = [torch.randn_like(values) for values in found]
    ours, theirs = (
        torch.autograd.grad(sum((v * u).sum() for v, u in zip(values, up, strict=True)), leaves)
        for values in (found, expected)
    )
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b)
        assert b.abs().sum() > 0


def test_initial_values():
    torch.manual_seed(0)
    head, zero = DyHead(channels=32, num_blocks=2), DyHead(channels=32, num_blocks=2, zero_offsets=True)

    for block in head.blocks:
        assert 0.9 * 288**-0.5 < block.offset.weight.abs().max() <= 288**-0.5
        assert 0.9 * 288**-0.5 < block.coarser.weight.abs().max() <= 288**-0.5 and (block.coarser.bias == 0).all()
        assert block.scale.weight.std().item() == pytest.approx(0.01, rel=0.4) and block.scale.bias == 0
        assert block.finer.norm.num_groups == 16
    assert all((p == 0).all() for block in zero.blocks for p in block.offset.parameters())


def test_levels_of_any_memory_format_and_one_level_alone():
    head, features = random_head(), pyramid()

    expected = head(features)

    for ours, theirs in zip(head([f.to(memory_format=torch.channels_last) for f in features]), expected, strict=True):
        torch.testing.assert_close(ours, theirs)
    assert head(features[:1])[0].shape == features[0].shape


def test_mixed_precision():
    head, features = random_head(), pyramid()

    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = head(features)
        sum(values.float().square().mean() for values in found).backward()

    for ours, theirs in zip(found, head(features), strict=True):
        assert (ours.float() - theirs).abs().mean() < 0.05 * theirs.abs().mean()
    assert all(p.grad.isfinite().all() for p in head.parameters())


def test_a_detector_with_a_dynamic_head(tiny_config):
    model = build_model(tiny_config({**DYHEAD, "MODEL.ATSS.SIZE_DIVISIBILITY": 128})).train()

    losses = model([image(64, 60, [[4, 4, 60, 60]]), image(50, 64, [])])
    sum(losses.values()).backward()

    assert len(model.neck.blocks) == 1 and len(model.head.class_tower) == 0
    assert model.head.class_logits.kernel_size == (1, 1)
    assert all(p.grad.abs().sum() > 0 for p in model.neck.parameters())
    assert model.preprocess([image(100, 140)]).tensor.shape == (1, 3, 128, 256)


def test_levels_must_follow_each_other(tiny_config):
    cfg = tiny_config({**DYHEAD, "MODEL.ATSS.IN_FEATURES": ["p3", "p5"]})

    with pytest.raises(InputError, match=r"MODEL\.ATSS\.IN_FEATURES: .*DYHEAD_BLOCKS.* p3, p5 have \[8, 32\]"):
        build_model(cfg)
