#!/usr/bin/env python
"""Checkpoints of any content: weights that are finite numbers by name, or refused in one line; never code that runs.

    python fuzz/checkpoints.py -max_total_time=600

The first byte chooses: a file of torch's as it is, the pickle inside of a whole one, a `.pkl` file, or the converter,
which gets the weights of another codebase with some of their shapes changed.
"""

import io
import math
import pickle
import sys
import zipfile
from pathlib import Path

import atheris

from harness import fuzz, working_folder

with atheris.instrument_imports(include=["atss.checkpoints", "zipfile"]):
    import atss  # noqa: F401

    # isort: split
    import numpy as np
    import torch
    from torch._weights_only_unpickler import Unpickler

    from atss.checkpoints import conversion
    from atss.checkpoints.reading import MAX_NUMBERS, read_weights
    from atss.config import load_config

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "tests/checkpoints"))
from layouts import MOBILENETV2, Architecture, caffe2, mmdetection, otx, paper, torchvision  # noqa: E402

# Not all of torch, which would take minutes at every start.
Unpickler.load = atheris.instrument_func(Unpickler.load)
torch.serialization._load = atheris.instrument_func(torch.serialization._load)
torch.serialization._legacy_load = atheris.instrument_func(torch.serialization._legacy_load)

# Sides of tensors that arithmetic on shapes may stumble over.
SIDES = [0, 1, 2, 3, 7, 27, 64, 80, 81, 256, 1 << 20, 1 << 40, 1 << 62]

folder = working_folder("checkpoints")
torch.set_num_threads(1)
cfg = load_config(str(ROOT / "configs/Base-ATSS.yaml"), ["MODEL.DEVICE", "cpu"], read_datasets=False)
A = Architecture(channels=64)
deformable = Architecture(channels=64, deformable_stages=(2, 3, 4), deformable_tower=True)
layouts = [
    paper(A, light=True)["model"], paper(deformable, light=True)["model"],
    mmdetection(A, light=True)["state_dict"], torchvision(A), caffe2(A),
    otx(MOBILENETV2, light=True)["state_dict"],
]  # fmt: skip

# Models are built for their shapes, which takes longer than all else.
shapes_by_model = {}
build_shapes = conversion.shapes_of


def shapes_of(cfg):
    model = cfg.MODEL.clone()
    model.defrost()
    model.ATSS.CLASS_NAMES = []
    model = model.dump()
    if model not in shapes_by_model:
        shapes_by_model[model] = build_shapes(cfg)
    return shapes_by_model[model]


conversion.shapes_of = shapes_of
small = {"model": {"conv1.weight": torch.zeros(2, 3), "bn1.bias": torch.zeros(4, dtype=torch.float16)}, "iteration": 3}


def read(data):
    kind, rest = (data[0] % 4, data[1:]) if data else (0, data)
    if kind == 3:
        convert(rest)
        return
    path = folder / ("weights.pkl" if kind == 2 else "weights.pth")
    path.write_bytes(wrapped(rest) if kind == 1 else rest)
    weights, names = read_weights(path, allow_pickle=True)
    for name, value in weights.items():
        assert type(name) is str and value.dtype == torch.float32 and value.isfinite().all(), name
    assert all(type(name) is str for name in names)


def wrapped(pickled):
    """A file of torch's with this in the place of its pickle."""
    whole, changed = zipfile.ZipFile(io.BytesIO(saved(small))), io.BytesIO()
    with zipfile.ZipFile(changed, "w") as archive:
        for name in whole.namelist():
            archive.writestr(name, pickled if name.endswith("data.pkl") else whole.read(name))
    return changed.getvalue()


def saved(content, **options):
    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


def convert(data):
    """The converter on weights with all names of a codebase, of which a few have other shapes or are missing."""
    fuzzed = atheris.FuzzedDataProvider(data)
    layout = layouts[fuzzed.ConsumeIntInRange(0, len(layouts) - 1)]
    weights = {name.removeprefix("module."): torch.zeros(()).expand(value.shape) for name, value in layout.items()}
    names = list(weights)
    for _ in range(fuzzed.ConsumeIntInRange(0, 8)):
        name = fuzzed.PickValueInList(names)
        if fuzzed.ConsumeBool():
            weights.pop(name, None)
        else:
            shape = [fuzzed.PickValueInList(SIDES) for _ in range(fuzzed.ConsumeIntInRange(0, 5))]
            # As of what `read_weights` gives; torch multiplies all sides, also where one is 0.
            if math.prod(max(side, 1) for side in shape) <= MAX_NUMBERS:
                weights[name] = torch.zeros(()).expand(shape)
    if not weights:
        return
    conversion.read_weights = lambda *_: (weights, [])
    found = conversion.convert("weights", cfg, allow_pickle=True)
    assert all(found.weights[key].shape == shape for key, shape in conversion.shapes_of(found.cfg).items()
               if key in found.weights)  # fmt: skip


if __name__ == "__main__":
    arrays = {"model": {"conv1_w": np.zeros((2, 3), np.float32), "iteration": np.int64(3)}, "__author__": "someone"}
    legacy = saved(small, _use_new_zipfile_serialization=False)
    inside = zipfile.ZipFile(io.BytesIO(saved(small))).read("archive/data.pkl")
    seeds = {"zip": b"\0" + saved(small), "legacy": b"\0" + legacy, "inside": b"\1" + inside}
    seeds |= {f"pickle-{n}": b"\2" + pickle.dumps(arrays, protocol=n) for n in (0, 2, 4, 5)}
    seeds |= {f"convert-{n}": bytes([3, n, *b"\3\1\2\3\4\5\6\7"]) for n in range(len(layouts))}
    tokens = ("numpy.core.multiarray", "_reconstruct", "ndarray", "dtype", "scalar", "torch._utils", "FloatStorage")
    tokens += ("_rebuild_tensor_v2", "_rebuild_parameter", "_rebuild_sparse_tensor", "_rebuild_qtensor", "OrderedDict")
    tokens += ("builtins", "eval", "getattr", "os", "system", "f8", "O8", "V8", "model", "state_dict", "PK\3\4")
    fuzz(read, seeds, tokens)
