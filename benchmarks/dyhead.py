"""Time of the dynamic head, forward and backward, beside mmdetection's where that is installed.

    python benchmarks/dyhead.py --size 800 1344 --blocks 1 --repeat 5

Both get the same feature maps and weights, use torchvision's deformable convolution, and run in turns. Their outputs
and gradients are compared first.
"""

import argparse
import importlib
import sys
import time
import types

import torch
from torch import nn
from torchvision.ops import deform_conv2d

from atss.checkpoints.conversion import make_linear
from atss.checkpoints.formats import MMDETECTION
from atss.modeling.backbones.dyhead import DyHead, first_values


def main():
    args = parse_arguments()
    torch.manual_seed(0)
    heads = {"this project": DyHead(channels=256, num_blocks=args.blocks)}
    sides = [(-(-args.size[0] // stride), -(-args.size[1] // stride)) for stride in (8, 16, 32, 64, 128)]
    features = [torch.randn(args.batch, 256, *side, device=args.device) for side in sides]
    try:
        heads["mmdetection"] = mmdetection(args.blocks)
    except ImportError as error:
        print(f"without mmdetection: {error}")
    else:
        heads["this project"].load_state_dict(renamed(heads["mmdetection"].state_dict()), strict=False)
    results = {name: run(head.to(args.device), features)[1] for name, head in heads.items()}
    first, *others = results.values()
    for other in others:
        print(f"largest difference {max((a - b).abs().max().item() for a, b in zip(first, other, strict=True)):.1e}")
    seconds = {name: [] for name in heads}
    for _ in range(args.repeat):
        for name, head in heads.items():
            seconds[name].append(run(head, features)[0])
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {args.device}; {args.blocks} blocks, "
          f"{args.batch} x {args.size[0]}x{args.size[1]}, forward and backward, best of {args.repeat}")  # fmt: skip
    for name, times in seconds.items():
        print(f"{name:>14} {min(times):8.3f} s")


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, nargs=2, default=(800, 1344), metavar=("HEIGHT", "WIDTH"), help="of images")
    parser.add_argument("--batch", type=int, default=1, help="images")
    parser.add_argument("--blocks", type=int, default=1)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    return parser.parse_args()


def run(head, features):
    """Seconds of a training step, on a CPU those that all its threads work; its outputs and gradients."""
    features = [feature.clone().requires_grad_() for feature in features]
    clock = time.perf_counter if features[0].is_cuda else time.process_time  # other programs may share a CPU
    start = clock()
    outputs = head(features)
    sum(output.square().mean() for output in outputs).backward()
    if features[0].is_cuda:
        torch.cuda.synchronize()
    seconds = clock() - start
    return seconds, [*(o.detach() for o in outputs), *(feature.grad for feature in features)]


def mmdetection(num_blocks):
    """mmdetection's dynamic head, with torchvision's operator in place of mmcv's, which must be compiled."""
    import mmdet

    # The packages' initialisation needs mmcv's compiled part.
    for name in ("models", "models.necks", "models.layers"):
        module = sys.modules[f"mmdet.{name}"] = types.ModuleType(f"mmdet.{name}")
        module.__path__ = [f"{mmdet.__path__[0]}/{name.replace('.', '/')}"]
    for name in ("mmcv.ops", "mmcv.ops.modulated_deform_conv"):
        sys.modules[name] = types.ModuleType(name)
    sys.modules["mmcv.ops.modulated_deform_conv"].ModulatedDeformConv2d = ModulatedDeformConv2d
    sys.modules["mmdet.models.layers"].DyReLU = importlib.import_module("mmdet.models.layers.se_layer").DyReLU
    head = importlib.import_module("mmdet.models.necks.dyhead").DyHead(256, 256, num_blocks, zero_init_offset=False)
    return head.train()


class ModulatedDeformConv2d(nn.Module):
    """mmcv's layer as far as the dynamic head needs it; offsets of larger maps are read as its kernels read them."""

    def __init__(self, in_channels, out_channels, kernel_size, stride, padding, bias):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel_size, kernel_size) * 0.02)
        self.stride, self.padding = stride, padding

    def forward(self, x, offset, mask):
        if self.stride == 1 and x.shape != offset.shape:
            offset, mask = first_values(offset, x), first_values(mask, x)
        return deform_conv2d(x, offset, self.weight, None, self.stride, self.padding, mask=mask)


def renamed(weights):
    """mmdetection's weights by our names, without the biases that it does not have."""
    renamed = {MMDETECTION.rename(f"neck.1.{name}"): value for name, value in weights.items()}
    make_linear(renamed)
    return {name.removeprefix("neck."): value for name, value in renamed.items()}


if __name__ == "__main__":
    main()
