"""Random numbers that are functions of where they are drawn, so that a run that goes on draws what it would have drawn.

No state is kept: the random numbers of an iteration follow from the seed, the iteration and the process, those of a
image from the seed and its place in the order of the images.
"""

import contextlib
import random

import numpy as np
import torch


def seed_all(*place):
    """Seed Python, NumPy and PyTorch, its GPU too, with integers from 0 that together say where numbers are drawn."""
    _seed_cpu(place)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed(torch.initial_seed())


@contextlib.contextmanager
def drawn_at(*place):
    """Random numbers on the CPU as after `seed_all`; afterwards those from before go on."""
    before = random.getstate(), np.random.get_state(), torch.random.get_rng_state()
    _seed_cpu(place)
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.random.set_rng_state(before[2])


def _seed_cpu(place):
    first, second, third = np.random.SeedSequence(place).generate_state(3).tolist()
    random.seed(first)
    np.random.seed(second)
    torch.random.default_generator.manual_seed(third)
