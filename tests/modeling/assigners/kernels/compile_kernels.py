"""Compile the kernels for a GPU that need not be there, for two batches: prints what came out as JSON.

python compile_kernels.py CAPABILITY, for example 90
"""

import contextlib
import json
import re
import sys

import torch
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

from atss.modeling.anchors import AnchorGrid, make_cell_anchors
from atss.modeling.assigners.assigner import InvalidBoxes
from atss.modeling.assigners.kernels import atss


class Driver:
    """What Triton asks of a driver in order to compile."""

    def get_current_target(self):
        return GPUTarget("cuda", int(sys.argv[1]), 32)

    def get_current_device(self):
        return 0

    def get_current_stream(self, device):
        return 0


COMPILED = []


class Recorder:
    """Compiles a kernel where it would be launched."""

    def __init__(self, kernel):
        self.kernel = kernel

    def __getitem__(self, grid):
        def compile(*args, **options):
            kernel = self.kernel.warmup(*args, grid=grid, **options)
            code = kernel.asm["ptx"]
            COMPILED.append(
                {
                    "name": self.kernel.__name__,
                    "fused": re.findall(r"fma\.rn\.f\d+", code),
                    "shared": kernel.metadata.shared,
                    "hash": kernel.hash,
                }
            )

        return compile


driver.set_active(Driver())
torch.cuda.device_of = lambda tensor: contextlib.nullcontext()
atss.find_positives, atss.resolve_conflicts = Recorder(atss.find_positives), Recorder(atss.resolve_conflicts)
STRIDES = [8, 16, 32, 64, 128]
for height, width, counts in ((800, 1344, (20, 1, 7, 16)), (640, 1024, (3, 4, 0, 100))):
    grid = AnchorGrid([(-(-height // s), -(-width // s)) for s in STRIDES], STRIDES, make_cell_anchors(STRIDES))
    boxes = [torch.zeros(count, 4) for count in counts]
    atss.assign_with_triton(grid, boxes, None, 9, InvalidBoxes())
print(json.dumps(COMPILED))
