"""The order of the training images: a function of the seed, whatever happens to the run and its workers."""

import itertools
import multiprocessing
import os
import signal
import time

import numpy as np
import pytest
import torch
from detectron2.data.samplers import TrainingSampler
from detectron2.utils import comm

from atss import data
from atss.data import train_loader
from atss.data.train_loader import MappedImages, Place, batches, sampler_of
from atss.data.workers import MAX_DEATHS, MAX_WORKERS, number_of_workers, restarted
from atss.errors import InputError


def first(loader, number):
    return list(itertools.islice(loader, number))


def same(batch, other):
    return all(
        x["file_name"] == y["file_name"]
        and torch.equal(x["image"], y["image"])
        and torch.equal(x["instances"].gt_boxes.tensor, y["instances"].gt_boxes.tensor)
        for x, y in zip(batch, other, strict=True)
    )


@pytest.fixture
def config(tiny_config):
    def make(**settings):
        return tiny_config({"INPUT.MIN_SIZE_TRAIN": "(96, 128, 160)", **settings})

    return make


@pytest.mark.parametrize("workers, start", [(0, 0), (1, 0), (3, 0), (0, 7), (2, 7)])
def test_images_and_augmentation_do_not_depend_on_workers_nor_on_the_first_batch(config, workers, start):
    expected = first(train_loader(config()), start + 9)
    loader = train_loader(config(**{"DATALOADER.NUM_WORKERS": workers}))

    loader.first = start
    found = first(loader, 9)

    assert all(same(x, y) for x, y in zip(expected[start:], found, strict=True))
    assert len({record["image"].shape for batch in found for record in batch}) > 3, "augmentation is random"


@pytest.mark.parametrize(
    "wanted, cores, processes, expected",
    [(-1, 1, 1, 1), (-1, 2, 1, 2), (-1, 64, 1, MAX_WORKERS), (-1, 6, 2, 3), (-1, 2, 8, 1), (0, 64, 1, 0), (7, 2, 1, 7)],
)
def test_workers_by_the_cores_of_a_process_unless_a_number_is_given(monkeypatch, wanted, cores, processes, expected):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(cores)))
    monkeypatch.setattr(comm, "get_local_size", lambda: processes)

    assert number_of_workers(wanted) == expected


def test_loaders_take_the_number_of_workers_of_this_machine(config, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2})
    cfg = config(**{"DATALOADER.NUM_WORKERS": -1})

    (name,) = cfg.DATASETS.TEST
    loaders = train_loader(cfg), data.test_loader(cfg, name), data.validation_loader(cfg, name)

    assert [loader.num_workers for loader in loaders] == [3, 3, 3]


def test_a_batch_can_be_made_again(config):
    """As it was with workers and in order; it draws none of the random numbers of training."""
    loader = train_loader(config(**{"DATALOADER.NUM_WORKERS": 2}))
    expected = first(loader, 6)
    torch.manual_seed(5)
    state = torch.random.get_rng_state()

    assert all(same(loader.batch(number), expected[number]) for number in (5, 0, 3))
    assert torch.equal(torch.random.get_rng_state(), state)


def test_another_seed_gives_another_order(config):
    names = [[r["file_name"] for b in first(train_loader(config(SEED=seed)), 6) for r in b] for seed in (1, 2)]

    assert names[0] != names[1]


def test_loading_draws_none_of_the_models_random_numbers(config):
    torch.manual_seed(5), np.random.seed(5)
    expected = torch.rand(3).tolist(), np.random.rand()
    torch.manual_seed(5), np.random.seed(5)

    first(train_loader(config()), 3)

    assert (torch.rand(3).tolist(), np.random.rand()) == expected


def test_wide_and_tall_images_are_in_different_batches(config):
    for batch in first(train_loader(config()), 20):
        assert len({r["width"] > r["height"] for r in batch}) == 1
    mixed = first(train_loader(config(**{"DATALOADER.ASPECT_RATIO_GROUPING": False})), 20)
    assert any(len({r["width"] > r["height"] for r in batch}) == 2 for batch in mixed)


def test_processes_share_the_order_of_one(monkeypatch):
    """Two processes with batches of 2 see what one with batches of 4 does, every image at the same place."""

    def of_process(rank, world_size, batch_size):
        monkeypatch.setattr(comm, "get_rank", lambda: rank)
        monkeypatch.setattr(comm, "get_world_size", lambda: world_size)
        return first(batches(TrainingSampler(10, seed=3), [False] * 10, batch_size), 8)

    alone = of_process(0, 1, 4)
    both = zip(of_process(0, 2, 2), of_process(1, 2, 2), strict=True)

    assert [sorted(batch) for batch in alone] == [sorted(x + y) for x, y in both]


@pytest.mark.parametrize("name", ["TrainingSampler", "RepeatFactorTrainingSampler", "RandomSubsetTrainingSampler"])
def test_detectron2s_samplers_with_a_seed(name):
    dicts = [{"annotations": [{"category_id": i % 3}]} for i in range(12)]
    make = sampler_of(name, dicts, repeat_threshold=0.5, subset_ratio=0.5)

    once, again, other = (first(make(seed), 30) for seed in (1, 1, 2))

    assert once == again != other


def unreadable_first(record):
    if record["file_name"] in ("0.png", "1.png"):
        raise InputError(f"{record['file_name']}: the image cannot be read")
    return dict(record)


def test_an_unreadable_image_is_replaced_by_one_of_the_same_orientation_and_named():
    dicts = [{"file_name": f"{i}.png"} for i in range(8)]
    wide = [True] * 4 + [False] * 4
    images = MappedImages(dicts, unreadable_first, wide, seed=1, skip_unreadable=True)

    found = [images[Place(position, 0)] for position in range(20)]

    assert {record["file_name"] for record in found} == {"2.png", "3.png"}
    assert all(record["unusable"][0] == ("0.png", "0.png: the image cannot be read") for record in found)
    assert any(("1.png", "1.png: the image cannot be read") in record["unusable"] for record in found)
    assert images[Place(3, 0)] == images[Place(3, 0)], "the same one at the same place"
    assert images[Place(3, 5)]["unusable"] == []


def test_unreadable_images_alone_are_refused():
    def never(record):
        raise InputError(f"{record['file_name']}: gone")

    with pytest.raises(InputError, match=r"0\.png: gone; 20 images in a row"):
        MappedImages([{"file_name": "0.png"}], never, [False], seed=1, skip_unreadable=True)[Place(0, 0)]


@pytest.mark.slow
def test_a_worker_that_is_killed_costs_no_batch(config, caplog):
    """Nor does its death raise anything elsewhere, in the middle of a step."""
    expected = first(train_loader(config()), 12)
    batches = iter(train_loader(config(**{"DATALOADER.NUM_WORKERS": 2})))
    before, others = signal.getsignal(signal.SIGCHLD), set(multiprocessing.active_children())

    found = first(batches, 3)
    (set(multiprocessing.active_children()) - others).pop().kill()
    time.sleep(0.3)
    found += first(batches, 9)

    assert all(same(x, y) for x, y in zip(expected, found, strict=True))
    assert any("A data worker died before batch" in r.getMessage() for r in caplog.records)
    assert signal.getsignal(signal.SIGCHLD) is before


def test_workers_that_die_again_and_again_end_the_loading():
    def loader(number):
        yield from range(number, 2)
        raise RuntimeError("DataLoader worker (pid 1) is killed by signal: Killed.")

    batches = restarted(loader)

    assert [next(batches), next(batches)] == [0, 1]
    with pytest.raises(InputError, match=rf"died {MAX_DEATHS} times before batch 3 .*DATALOADER\.NUM_WORKERS"):
        next(batches)


def test_errors_of_the_data_are_not_deaths_of_workers():
    def loader(number):
        yield 0
        raise RuntimeError("Caught RuntimeError in DataLoader worker process 0.")

    with pytest.raises(RuntimeError, match="Caught RuntimeError"):
        list(restarted(loader))
