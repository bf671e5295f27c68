"""Loader of the training images: endless, in an order that depends on nothing but the seed.

The n-th batch of a process, and the augmentation of its images, is a function of the seed, of n, of the process and of
the number of processes. A resumed run therefore needs no state but the seed, whatever workers had prepared.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from detectron2.data import DatasetFromList
from detectron2.data.samplers import RandomSubsetTrainingSampler, RepeatFactorTrainingSampler, TrainingSampler
from detectron2.utils import comm
from torch.utils.data import DataLoader

from ..errors import InputError, first_line
from ..utils.randomness import seeded
from .workers import restarted

SAMPLERS = ("TrainingSampler", "RepeatFactorTrainingSampler", "RandomSubsetTrainingSampler")
# Maximum number of images in a row that cannot be used.
MAX_TRIES = 20


class Place(NamedTuple):
    """An image by its `position` in the order of all processes' images, and the `index` of its dict."""

    position: int
    index: int


class TrainLoader:
    """Batches of mapped images, each a list of dicts.

    Args:
        dicts: list of dicts in Detectron2's standard form.
        mapper: function of such a dict that returns a dict for the detector; raises InputError if the image cannot be
            used.
        sampler: function of a seed that returns one of Detectron2's endless samplers.
        batch_size: images per batch of this process.
        group: whether each batch consists of wide images, or of tall ones.
        num_workers: number of worker processes, 0 to load in this process.
        seed: non-negative int.
        skip_unreadable: whether to replace an image that cannot be used by another one, which then has a list
            `unusable` of (file name, reason).

    The attribute `first` is the number of the first batch of the next iteration.
    """

    def __init__(self, dicts, mapper, sampler, batch_size, *, group, num_workers, seed, skip_unreadable=False):
        self.dicts = DatasetFromList(dicts, copy=False)
        self.wide = [bool(group) and record.get("width", 0) > record.get("height", 0) for record in dicts]
        self.mapper = mapper
        self.sampler = sampler
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.seed = seed
        self.skip_unreadable = skip_unreadable
        self.first = 0

    def __iter__(self):
        # A generator, so that workers start, and the seed is read, with the first batch.
        yield from restarted(self._loader_from, self.first)

    def batch(self, number):
        """Make batch `number` once more, without workers; the same one as in an iteration."""
        images = self._images()
        return [images[place] for place in next(self._batches_from(number))]

    def _images(self):
        return MappedImages(self.dicts, self.mapper, self.wide, self.seed, self.skip_unreadable)

    def _batches_from(self, first):
        return itertools.islice(batches(self.sampler(self.seed), self.wide, self.batch_size), first, None)

    def _loader_from(self, first):
        return DataLoader(
            self._images(),
            batch_sampler=self._batches_from(first),
            num_workers=self.num_workers,
            collate_fn=list,
            generator=torch.Generator(),  # so that starting workers draws nothing from the model's numbers
        )


def batches(sampler, wide, batch_size):
    """Yield the batches of this process as lists of `Place`, wide images and tall ones in different batches.

    `sampler` gives endless indices of this process; `wide` says by index whether an image is wide.
    """
    rank, world_size = comm.get_rank(), comm.get_world_size()
    waiting = {False: [], True: []}
    for number, index in enumerate(sampler):
        batch = waiting[wide[index]]
        batch.append(Place(number * world_size + rank, index))
        if len(batch) == batch_size:
            yield batch.copy()
            batch.clear()


@dataclass
class MappedImages:
    """Mapped images by `Place`; see `TrainLoader`."""

    dicts: Sequence
    mapper: Callable
    wide: list
    seed: int
    skip_unreadable: bool

    def __getitem__(self, place):
        with seeded(self.seed, place.position):
            return self._usable(place.index) if self.skip_unreadable else self.mapper(self.dicts[place.index])

    def _usable(self, index):
        unusable = []
        while len(unusable) < MAX_TRIES:
            try:
                return {**self.mapper(self.dicts[index]), "unusable": unusable}
            except InputError as error:
                # A mosaic has other images, too.
                name = getattr(error, "file_name", self.dicts[index]["file_name"])
                unusable.append((name, first_line(error)))
            # Another image of the same orientation, so that the batch needs no more padding.
            index = int(np.random.choice(np.flatnonzero(np.equal(self.wide, self.wide[index]))))
        raise InputError(f"{unusable[-1][1]}; {MAX_TRIES} images in a row cannot be used")


def sampler_of(name, dicts, repeat_threshold, subset_ratio):
    """Function of a seed that returns one of `SAMPLERS`: endless indices of this process."""
    if name == "RepeatFactorTrainingSampler":
        factors = RepeatFactorTrainingSampler.repeat_factors_from_category_frequency(dicts, repeat_threshold)
        return lambda seed: RepeatFactorTrainingSampler(factors, seed=seed)
    if name == "RandomSubsetTrainingSampler":
        return lambda seed: RandomSubsetTrainingSampler(len(dicts), subset_ratio, seed_shuffle=seed, seed_subset=seed)
    return lambda seed: TrainingSampler(len(dicts), seed=seed)
