"""The dynamic head (Dai et al. 2021, arXiv 2106.08322): attention over levels, places and channels after the pyramid.

The two published implementations, microsoft/DynamicHead and mmdetection, compute the same function. In one point it is
not the paper's: the features of the next coarser level are convolved at their own size, and upsampled afterwards. The
offsets and factors belong to the larger map, and the convolution reads the first values that lie in memory
(microsoft/DynamicHead issue 25). Published weights depend on it. What the implementations do not share:

- Deformable convolutions have a bias in DynamicHead, none in mmdetection (converted as 0).
- Initial values: DynamicHead leaves those of offsets and dynamic ReLU to PyTorch, as is done here. mmdetection draws
  both with a standard deviation of 0.01; its model with 43.3 AP begins with offsets of 0 (`zero_offsets`).
- Images are padded to multiples of 128 pixels in DynamicHead and in mmdetection's models with 1x1 predictors, which
  reproduce it, and of 32 in mmdetection's other model (MODEL.ATSS.SIZE_DIVISIBILITY). The averages of the attention
  include the padding.
- The predictors behind it are 1x1 convolutions in the former, 3x3 in the latter (MODEL.ATSS.PREDICTOR_KERNEL).
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from torch import Tensor, nn
from torch.nn import functional as F

from ...errors import InputError
from .deformable import ModulatedDeformConv

TAPS = 9  # of a 3x3 kernel


class DyHead(nn.Module):
    """A stack of dynamic blocks over the L levels of a feature pyramid.

    Args:
        channels: C, of the feature maps, a multiple of 16.
        num_blocks: number of blocks (6 in the paper).
        zero_offsets: True to begin with offsets of 0 and factors of 0.5.
    """

    @configurable
    def __init__(self, *, channels: int, num_blocks: int = 6, zero_offsets: bool = False):
        super().__init__()
        self.blocks = nn.Sequential(*(DyBlock(channels, zero_offsets) for _ in range(num_blocks)))

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: Sequence[ShapeSpec]) -> dict:
        strides = [shape.stride for shape in input_shape]
        if any(coarse != 2 * fine for fine, coarse in pairwise(strides)):
            raise InputError(
                "MODEL.ATSS.IN_FEATURES: a dynamic head (MODEL.ATSS.DYHEAD_BLOCKS) needs levels that each have twice "
                f"the stride of the one before, but {', '.join(cfg.MODEL.ATSS.IN_FEATURES)} have {strides}"
            )
        atss = cfg.MODEL.ATSS
        channels = input_shape[0].channels
        return {"channels": channels, "num_blocks": atss.DYHEAD_BLOCKS, "zero_offsets": atss.DYHEAD_ZERO_OFFSETS}

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """L maps (N, C, H_l, W_l), finest first, sides halved and rounded up from level to level -> the same shapes."""
        return self.blocks([feature.contiguous() for feature in features])  # which deformable convolutions need


class DyBlock(nn.Module):
    """One block: spatial attention, then scale-aware attention, then task-aware attention (section 3.2).

    Args:
        channels: C.
        zero_offsets: as in `DyHead`.
    """

    def __init__(self, channels: int, zero_offsets: bool):
        super().__init__()
        self.offset = nn.Conv2d(channels, 3 * TAPS, 3, padding=1)
        self.same, self.coarser, self.finer = (
            ModulatedDeformConv(channels, channels, 3, stride, padding=1, norm=nn.GroupNorm(16, channels))
            for stride in (1, 1, 2)
        )
        self.scale = nn.Linear(channels, 1)
        self.relu = DynamicReLU(channels)

        for layer in (self.same, self.coarser, self.finer):
            nn.init.kaiming_uniform_(layer.weight, a=math.sqrt(5))
        nn.init.normal_(self.scale.weight, std=0.01)
        nn.init.zeros_(self.scale.bias)
        if zero_offsets:
            nn.init.zeros_(self.offset.weight)
            nn.init.zeros_(self.offset.bias)

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """L maps (N, C, H_l, W_l) -> L maps of the same shapes."""
        return [self.of_level(features, level) for level in range(len(features))]

    def of_level(self, features: list[Tensor], level: int) -> Tensor:
        """The new map (N, C, H, W) of a level, from its own and its neighbours'."""
        feature = features[level]
        both = self.offset(feature)  # (N, 27, H, W): y and x of every tap, then its factor
        offset, mask = both[:, : 2 * TAPS], both[:, 2 * TAPS :].sigmoid()
        maps = [self.same(feature, offset, mask)]  # each (N, C, H, W)
        if level > 0:
            maps.append(self.finer(features[level - 1], offset, mask))
        if level + 1 < len(features):
            coarse = features[level + 1]  # (N, C, H', W')
            coarse = self.coarser(coarse, first_values(offset, coarse), first_values(mask, coarse))
            maps.append(F.interpolate(coarse, feature.shape[2:], mode="bilinear", align_corners=True))
        total = None
        for values in maps:
            factor = F.hardsigmoid(F.relu(self.scale(values.mean((2, 3)))))[..., None, None] / len(maps)  # (N, 1, 1, 1)
            total = values * factor if total is None else torch.addcmul(total, values, factor)
        return self.relu(total)


class DynamicReLU(nn.Module):
    """Maximum of two lines per channel, whose slopes and intercepts depend on the image (Chen et al. 2020, DY-ReLU-B).

    Args:
        channels: C.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.squeeze = nn.Linear(channels, channels // 4)
        self.expand = nn.Linear(channels // 4, 4 * channels)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W). Slopes lie in 0 to 2 and -1 to 1, intercepts in -0.5 to 0.5."""
        lines = F.hardsigmoid(self.expand(F.relu(self.squeeze(x.mean((2, 3)))))) - 0.5  # (N, 4 C)
        slope, shift, other_slope, other_shift = lines[..., None, None].chunk(4, 1)  # (N, C, 1, 1) each
        return torch.maximum(x * (2 * slope + 1) + shift, x * (2 * other_slope) + other_shift)


def first_values(values: Tensor, like: Tensor) -> Tensor:
    """(N, K, H, W) -> (N, K, H', W'), the size of a smaller map `like`: the first values of every image in memory."""
    channels, (height, width) = values.shape[1], like.shape[2:]
    return values.flatten(1)[:, : channels * height * width].unflatten(1, (channels, height, width))
