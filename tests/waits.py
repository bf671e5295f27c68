"""Counts how often the host waits for a GPU that need not be there."""

import contextlib

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode


class Waits(TorchDispatchMode):
    """The operations inside of the context for which the host waits, with their devices, as the list `names`.

    Copies between host and device, unless they are asynchronous; a value on the host that a GPU must compute ends in an
    error of FakeTensorMode.
    """

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name, kwargs = function._schema.name.removeprefix("aten::"), kwargs or {}
        if name.startswith(("_fused_", "_amp_")):  # in place, and without versions for fake tensors
            return None
        result = function(*args, **kwargs)
        if name in ("_to_copy", "copy_"):
            source, target = args[1] if name == "copy_" else args[0], result
            asynchronous = kwargs.get("non_blocking", len(args) > 2 and args[2])
            if source.device.type != target.device.type and not asynchronous:
                self.names.append(f"{source.device.type} -> {target.device.type}")
        return result


@contextlib.contextmanager
def fake_gpu():
    """Tensors have a device and a shape, but no values; there may be a device "cuda"."""
    with FakeTensorMode() as mode, pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor)
        yield mode
