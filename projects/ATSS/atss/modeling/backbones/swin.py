"""Swin Transformers of timm, made to compute what those of published detectors compute."""

from torch import Tensor, nn
from torch.nn import functional as F


def pad_before_shift(model: nn.Module) -> nn.Module:
    """Make the blocks of a Swin Transformer pad feature maps before they shift them, in place; returns the model.

    timm pads to whole windows after the shift, the detectors of the paper (Liu et al. 2021) and mmdetection before it:
    feature maps whose sides the windows do not divide differ. Blocks must shift whatever the size that the model was
    built for (`always_partition`).
    """
    from timm.models.swin_transformer import SwinTransformerBlock

    class Block(SwinTransformerBlock):
        def _attn(self, x: Tensor) -> Tensor:
            """(N, H, W, C) -> (N, H, W, C)."""
            height, width = x.shape[1:3]
            rows, columns = self.window_size
            padded = F.pad(x, (0, 0, 0, -width % columns, 0, -height % rows))
            return super()._attn(padded)[:, :height, :width]

    for block in model.modules():
        if type(block) is SwinTransformerBlock:
            block.__class__ = Block  # the classes differ in `_attn` alone
    return model
