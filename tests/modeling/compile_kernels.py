"""Compile the kernels for a GPU that need not be there, for two batches: prints what came out as JSON.

python compile_kernels.py CAPABILITY (assigner | losses | suppression), for example 90
"""

import contextlib
import json
import re
import sys
from types import SimpleNamespace

import torch
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

from atss.modeling.anchors import AnchorGrid, make_cell_anchors
from atss.modeling.assigners.assigner import InvalidBoxes
from atss.modeling.assigners.kernels import atss
from atss.modeling.kernels import losses, suppression

COMPILED = []


class Recorder:
    """Compiles a kernel where it would be launched."""

    def __init__(self, kernel):
        self.kernel = kernel

    def __getitem__(self, grid):
        return lambda *args, **options: self.record(self.kernel.warmup(*args, grid=grid, **options))

    def record(self, compiled):
        fused, shared = re.findall(r"fma\.rn\.f\d+", compiled.asm["ptx"]), compiled.metadata.shared
        COMPILED.append({"name": self.kernel.__name__, "fused": fused, "shared": shared, "hash": compiled.hash})


# What Triton asks of a driver in order to compile.
driver.set_active(
    SimpleNamespace(
        get_current_target=lambda: GPUTarget("cuda", int(sys.argv[1]), 32),
        get_current_device=lambda: 0,
        get_current_stream=lambda device: 0,
    )
)
torch.cuda.device_of = lambda tensor: contextlib.nullcontext()
STRIDES = [8, 16, 32, 64, 128]
BATCHES = ((800, 1344, (20, 1, 7, 16)), (640, 1024, (3, 4, 0, 100)))


def compile_assigner(grid, boxes):
    atss.assign_with_triton(grid, boxes, None, 9, InvalidBoxes())


def compile_losses(grid, boxes):
    number = len(boxes)
    maps = [
        [torch.zeros(number, width, *shape).to(memory_format=torch.channels_last) for shape in grid.shapes]
        for width in (80, 4, 1)
    ]
    matches, first = torch.zeros(number, len(grid), dtype=torch.int64), torch.zeros(number, dtype=torch.int64)
    classes = torch.zeros(sum(map(len, boxes)), dtype=torch.int64)
    weights = [10.0, 10.0, 5.0, 5.0]
    losses.losses_with_triton(
        *maps,
        matches,
        first,
        torch.cat(boxes),
        classes,
        grid.cell_anchors,
        grid.strides,
        0.5,
        weights,
        0.0,
        0,
        0.25,
        2.0,
        -1.0,
        2.0,
    )
    losses.scaled_with_triton(torch.zeros(90), [80, 4, 6], torch.zeros(3), torch.bfloat16)


def compile_suppression(grid, boxes):
    number = 10 * len(boxes[0])
    candidates = torch.zeros(len(boxes), number, 4), torch.zeros(len(boxes), number)
    suppression.suppress_with_triton(*candidates, torch.zeros(len(boxes), number, dtype=torch.int64), 0.6, 100)


atss.find_positives, atss.resolve_conflicts = Recorder(atss.find_positives), Recorder(atss.resolve_conflicts)
losses.add_losses, losses.scale = Recorder(losses.add_losses), Recorder(losses.scale)
suppression.keep_best = Recorder(suppression.keep_best)
for height, width, counts in BATCHES:
    grid = AnchorGrid([(-(-height // s), -(-width // s)) for s in STRIDES], STRIDES, make_cell_anchors(STRIDES))
    boxes = [torch.zeros(count, 4) for count in counts]
    functions = {"assigner": compile_assigner, "losses": compile_losses, "suppression": compile_suppression}
    functions[sys.argv[2]](grid, boxes)
print(json.dumps(COMPILED))
