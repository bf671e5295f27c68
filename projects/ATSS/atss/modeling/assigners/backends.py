"""The implementations of a rule: "torch" on every device, "triton" on CUDA GPUs."""

import functools
import importlib.util

import torch

BACKENDS = ("auto", "torch", "triton")


def check_backend(backend):
    """Raise a ValueError for an unknown backend."""
    if backend not in BACKENDS:
        raise ValueError(f"backend: expected one of {', '.join(map(repr, BACKENDS))}, got {backend!r}")


def settle_backend(backend: str, device: torch.device, fits: bool = True) -> str:
    """Resolve "auto", and check that the backend runs on the device: returns "torch" or "triton".

    Args:
        backend: one of BACKENDS.
        device: device of the tensors.
        fits: whether the number of candidates fits the kernels.

    Raises:
        ValueError: "triton" is requested but not installed, the device is not a CUDA GPU (without Triton's
            interpreter), or there are too many candidates.
    """
    on_gpu = device.type == "cuda"
    if backend == "auto":
        return "triton" if on_gpu and fits and has_triton() else "torch"
    if backend == "triton" and not has_triton():
        raise ValueError("backend: 'triton' needs the package triton, which is not installed")
    if backend == "triton" and not on_gpu and not in_interpreter():
        raise ValueError(f"backend: 'triton' needs tensors on a CUDA GPU, got {device}; use 'auto' or 'torch'")
    if backend == "triton" and not fits:
        raise ValueError("backend: 'triton' has no room for so many candidates (topk x anchors per cell); use 'auto'")
    return backend


@functools.cache
def has_triton():
    return importlib.util.find_spec("triton") is not None


def in_interpreter():
    """Whether kernels run in Triton's interpreter, on any device (TRITON_INTERPRET=1)."""
    import triton

    return triton.knobs.runtime.interpret
