"""Seeds of random numbers."""

import random

import numpy as np
import torch

from atss.utils.randomness import seed_all, seeded


def drawn():
    return random.random(), np.random.rand(), torch.rand(()).item()


def test_equal_seeds_give_equal_numbers_and_different_ones_others():
    found = []
    for place in ((1, 2, 0), (1, 2, 0), (1, 2, 1), (1, 3, 0), (2, 2, 0)):
        seed_all(*place)
        found.append(drawn())

    assert found[0] == found[1] and len(set(found)) == 4
    assert all(len({numbers[i] for numbers in found}) == 4 for i in range(3)), "of Python, NumPy and PyTorch"


def test_the_random_state_outside_is_unchanged():
    seed_all(1, 0, 0)
    expected = drawn(), drawn()
    seed_all(1, 0, 0)

    first = drawn()
    with seeded(1, 7):
        inside = drawn()
    second = drawn()

    assert (first, second) == expected
    with seeded(1, 7):
        assert drawn() == inside
