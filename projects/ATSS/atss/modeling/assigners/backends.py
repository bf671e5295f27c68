"""The implementations of a rule: "torch" on every device, "triton" on CUDA GPUs."""

import importlib.util

import torch

BACKENDS = ("auto", "torch", "triton")
HAS_TRITON = importlib.util.find_spec("triton") is not None


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
        return "triton" if on_gpu and fits and HAS_TRITON else "torch"
    if backend == "torch":
        return backend
    if not HAS_TRITON:
        raise ValueError("backend: 'triton' needs the package triton, which is not installed")
    from triton import knobs

    # Triton's interpreter (TRITON_INTERPRET=1) runs kernels on any device.
    if not on_gpu and not knobs.runtime.interpret:
        raise ValueError(f"backend: 'triton' needs tensors on a CUDA GPU, got {device}; use 'auto' or 'torch'")
    if not fits:
        raise ValueError("backend: 'triton' has no room for so many candidates (topk x anchors per cell); use 'auto'")
    return backend
