"""Losses that stay on the device until the host reads those of many iterations at once."""

import math
from typing import NamedTuple

import torch
from detectron2.utils import comm


class Reading(NamedTuple):
    """The losses of an iteration by name, and "gradient", the gradient's norm, unless gradients are scaled."""

    iteration: int
    here: dict  # of this process
    means: dict  # over all processes

    @property
    def losses(self):
        return without_gradient(self.means)

    def is_suspect(self):
        """Whether this process's batch may be the cause of values that are not finite."""
        # If the losses of some processes are finite, their batches are not.
        return are_finite(self.losses) or not are_finite(without_gradient(self.here))


class Unread:
    """The values of iterations since the last reading."""

    def __init__(self):
        self._iterations = []

    def add(self, iteration, names, values, sums):
        """`values` (n,) of an iteration by name, and their `sums` over all processes, on the device."""
        self._iterations.append((iteration, names, torch.cat([values, sums])))

    def read(self):
        """Wait for the device, once; the `Reading` of every iteration since the last time, in order."""
        iterations, self._iterations = self._iterations, []
        if not iterations:
            return []
        values, readings = iter(torch.cat([values for _, _, values in iterations]).cpu().tolist()), []
        for iteration, names, _ in iterations:
            here = {name: next(values) for name in names}
            readings.append(Reading(iteration, here, {name: next(values) / comm.get_world_size() for name in names}))
        return readings


def without_gradient(values):
    return {name: value for name, value in values.items() if name != "gradient"}


def are_finite(values):
    """Whether all values of a dict are finite."""
    return all(map(math.isfinite, values.values()))
