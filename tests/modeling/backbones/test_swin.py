"""Attention in shifted windows against its definition (Liu et al. 2021, section 3.2), position by position."""

from itertools import product

import pytest
import torch
from timm.models.swin_transformer import SwinTransformerBlock
from torch import nn

from atss.modeling.backbones.swin import pad_before_shift

WINDOW, CHANNELS, HEADS = 4, 8, 2


def naive(attention, x, shift):
    """A map (H, W, C), padded with zeros to whole windows: each position attends to those of its shifted window.

    Windows that the shift cuts at the right and lower side of the padded map are continued by those at the left and
    upper side, but neither attends to the other.
    """
    height, width = x.shape[:2]
    rows, columns = (-(-side // WINDOW) * WINDOW for side in (height, width))
    padded = x.new_zeros(rows, columns, CHANNELS)
    padded[:height, :width] = x
    q, k, v = attention.qkv(padded).view(rows, columns, 3, HEADS, -1).unbind(2)
    table = attention.relative_position_bias_table.view(2 * WINDOW - 1, 2 * WINDOW - 1, HEADS)

    def window_of(place):
        """Number of the window along one side, -1 for the rest before the first one, and the place in it."""
        return (place - shift) // WINDOW, (place - shift) % WINDOW

    out = x.new_empty(height, width, CHANNELS)
    for i, j in product(range(height), range(width)):
        (row, y), (column, z) = window_of(i), window_of(j)
        logits, values = [], []
        for m, n in product(range(rows), range(columns)):
            (other_row, y2), (other_column, z2) = window_of(m), window_of(n)
            if (row, column) == (other_row, other_column):
                bias = table[y - y2 + WINDOW - 1, z - z2 + WINDOW - 1]
                logits.append((q[i, j] * k[m, n]).sum(-1) * (CHANNELS // HEADS) ** -0.5 + bias)
                values.append(v[m, n])
        weights = torch.stack(logits).softmax(0)
        out[i, j] = attention.proj((weights[..., None] * torch.stack(values)).sum(0).flatten())
    return out


@pytest.mark.parametrize("shift", [0, 2])
@pytest.mark.parametrize("size", [(5, 6), (8, 4), (3, 9)])
def test_maps_are_padded_before_the_shift(size, shift):
    torch.manual_seed(0)
    options = {"num_heads": HEADS, "window_size": WINDOW, "always_partition": True, "dynamic_mask": True}
    model = nn.Sequential(SwinTransformerBlock(CHANNELS, (8, 8), shift_size=shift, **options)).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.5)
    x = torch.randn(2, *size, CHANNELS)

    assert pad_before_shift(model) is model
    with torch.no_grad():
        found = model[0]._attn(x)
        expected = torch.stack([naive(model[0].attn, image, shift) for image in x])

    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
