"""The images to train on, without end, in an order that depends on nothing but the seed.

The n-th batch of a process, its images and what augmentation makes of them, is a function of the seed, of n, of the
process and of how many there are. So a run that goes on after n batches needs no state but the seed, whatever workers
had prepared.
"""

import itertools
from typing import NamedTuple

import numpy as np
import torch
from detectron2.data import DatasetFromList
from detectron2.data.samplers import RandomSubsetTrainingSampler, RepeatFactorTrainingSampler, TrainingSampler
from detectron2.utils import comm
from torch.utils.data import DataLoader, Dataset

from ..errors import InputError, first_line
from ..utils.randomness import drawn_at
from .workers import restarted

SAMPLERS = ("TrainingSampler", "RepeatFactorTrainingSampler", "RandomSubsetTrainingSampler")
# Other images that are tried in the place of one that cannot be used.
MAX_TRIES = 20


class Place(NamedTuple):
    """An image in the order of all images.

    position: its number, of those of all processes.
    index: of its dict.
    """

    position: int
    index: int


class TrainLoader:
    """Batches of mapped images, each a list of dicts; a new iteration starts with batch `first`.

    Args:
        dicts: list of dicts in Detectron2's standard form.
        mapper: function of such a dict -> dict for the detector; raises InputError where the image cannot be used.
        sampler: function of a seed -> endless sampler of indices, of Detectron2's.
        batch_size: images per batch, of this process.
        group: whether batches are of wide or of tall images alone.
        num_workers: processes that load, 0 for this one.
        seed: int from 0.
        skip_unreadable: whether an image that cannot be used is replaced by another one; its dict then tells in
            `unusable`, a list of (file name, reason).

    Attributes:
        first: number of the first batch of the next iteration.
        seed: see above.
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
        # A generator: neither workers nor the seed are needed before the first batch is.
        yield from restarted(self._loader_from, self.first)

    def _loader_from(self, first):
        return DataLoader(
            MappedImages(self.dicts, self.mapper, self.wide, self.seed, self.skip_unreadable),
            batch_sampler=Batches(self.sampler(self.seed), self.wide, self.batch_size, first),
            num_workers=self.num_workers,
            collate_fn=list,
            generator=torch.Generator(),  # so that starting workers draws nothing from the model's numbers
        )


class Batches:
    """The batches of a process as lists of `Place`: wide images together, tall ones together.

    Args:
        sampler: endless indices of the process.
        wide: whether an image is, by index.
        batch_size: images per batch.
        first: number of the first batch that is wanted.
    """

    def __init__(self, sampler, wide, batch_size, first=0):
        self.sampler = sampler
        self.wide = wide
        self.batch_size = batch_size
        self.first = first

    def __iter__(self):
        return itertools.islice(self._all(), self.first, None)

    def _all(self):
        rank, world_size = comm.get_rank(), comm.get_world_size()
        waiting = {False: [], True: []}
        for number, index in enumerate(self.sampler):
            batch = waiting[self.wide[index]]
            batch.append(Place(number * world_size + rank, index))
            if len(batch) == self.batch_size:
                yield batch.copy()
                batch.clear()


class MappedImages(Dataset):
    """Mapped images by `Place`."""

    def __init__(self, dicts, mapper, wide, seed, skip_unreadable):
        self.dicts = dicts
        self.mapper = mapper
        self.wide = wide
        self.seed = seed
        self.skip_unreadable = skip_unreadable

    def __len__(self):
        return len(self.dicts)

    def __getitem__(self, place):
        with drawn_at(self.seed, place.position):
            return self._usable(place.index) if self.skip_unreadable else self.mapper(self.dicts[place.index])

    def _usable(self, index):
        unusable = []
        while len(unusable) < MAX_TRIES:
            try:
                return {**self.mapper(self.dicts[index]), "unusable": unusable}
            except InputError as error:
                unusable.append((self.dicts[index]["file_name"], first_line(error)))
            # Another one that is as wide, so that the batch needs no more padding.
            others = np.flatnonzero(np.equal(self.wide, self.wide[index]))
            index = int(np.random.choice(others))
        raise InputError(f"{unusable[-1][1]}; {MAX_TRIES} images in a row cannot be used")


def sampler_of(name, dicts, repeat_threshold, subset_ratio):
    """Function of a seed -> the sampler of that name in `SAMPLERS`, endless indices of this process.

    Args:
        name: DATALOADER.SAMPLER_TRAIN.
        dicts: list of dicts in Detectron2's standard form.
        repeat_threshold: of RepeatFactorTrainingSampler.
        subset_ratio: of RandomSubsetTrainingSampler.
    """
    if name == "RepeatFactorTrainingSampler":
        factors = RepeatFactorTrainingSampler.repeat_factors_from_category_frequency(dicts, repeat_threshold)
        return lambda seed: RepeatFactorTrainingSampler(factors, seed=seed)
    if name == "RandomSubsetTrainingSampler":
        return lambda seed: RandomSubsetTrainingSampler(len(dicts), subset_ratio, seed_shuffle=seed, seed_subset=seed)
    return lambda seed: TrainingSampler(len(dicts), seed=seed)
