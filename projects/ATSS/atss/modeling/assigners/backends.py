"""Which implementation of a rule runs: "torch" everywhere, "triton" on CUDA GPUs."""

import functools
import importlib.util

BACKENDS = ("auto", "torch", "triton")


def check_backend(backend):
    """Raise a ValueError for a backend that does not exist."""
    if backend not in BACKENDS:
        raise ValueError(f"backend: expected one of {', '.join(map(repr, BACKENDS))}, got {backend!r}")


def settle_backend(backend, device, fits=True):
    """The backend, "torch" or "triton", that works on this device.

    Args:
        backend: one of BACKENDS.
        device: where the tensors are.
        fits: whether the work fits the kernels.

    Raises:
        ValueError: "triton" was asked for and is not installed, or the device is not a CUDA GPU (and Triton's
            interpreter is off), or the work does not fit.
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
    """Whether Triton's kernels run in its interpreter, on any device (TRITON_INTERPRET=1)."""
    import triton

    return triton.knobs.runtime.interpret
