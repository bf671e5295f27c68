"""Triton kernels: the assigners' work on CUDA GPUs, one file a rule."""
