"""Random numbers by the place where they are drawn."""

import random

import numpy as np
import torch

from atss.utils.randomness import drawn_at, seed_all


def drawn():
    return random.random(), np.random.rand(), torch.rand(()).item()


def test_the_same_place_gives_the_same_numbers_and_others_give_others():
    found = []
    for place in ((1, 2, 0), (1, 2, 0), (1, 2, 1), (1, 3, 0), (2, 2, 0)):
        seed_all(*place)
        found.append(drawn())

    assert found[0] == found[1] and len(set(found)) == 4
    assert all(len({numbers[i] for numbers in found}) == 4 for i in range(3)), "of Python, NumPy and PyTorch"


def test_within_a_place_nothing_is_taken_from_the_numbers_outside():
    seed_all(1, 0, 0)
    expected = drawn(), drawn()
    seed_all(1, 0, 0)

    first = drawn()
    with drawn_at(1, 7):
        inside = drawn()
    second = drawn()

    assert (first, second) == expected
    with drawn_at(1, 7):
        assert drawn() == inside
