"""Triton kernels of the label assignment rules, one file per rule."""
