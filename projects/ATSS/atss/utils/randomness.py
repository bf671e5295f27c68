"""Random numbers that depend on a position alone, so that a resumed run draws the same as an uninterrupted one.

There is no state: the random numbers of an iteration depend on the seed, the iteration and the process, those of an
image on the seed and its position in the order of the images.
"""

import contextlib
import random

import numpy as np
import torch


def seed_all(*key):
    """Seed Python, NumPy and PyTorch (CPU and GPU) with non-negative integers that identify a position."""
    _seed_cpu(key)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed(torch.initial_seed())


@contextlib.contextmanager
def seeded(*key):
    """Context with random numbers on the CPU as after `seed_all`; the previous state is restored afterwards."""
    before = random.getstate(), np.random.get_state(), torch.random.get_rng_state()
    _seed_cpu(key)
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.random.set_rng_state(before[2])


def _seed_cpu(key):
    first, second, third = np.random.SeedSequence(key).generate_state(3).tolist()
    random.seed(first)
    np.random.seed(second)
    torch.random.default_generator.manual_seed(third)
