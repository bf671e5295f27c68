"""Loaders of a config: batches, crowds, empty images, and errors."""

import itertools
import os
from pathlib import Path

import pytest
import torch
from detectron2.data import DatasetCatalog
from detectron2.data.datasets import load_coco_json
from detectron2.structures import BoxMode
from detectron2.utils import logger as detectron2_logger
from PIL import Image

from atss.config import load_config
from atss.data import check_data, train_loader
from atss.data.loaders import has_area, read_dataset, train_dicts
from atss.errors import InputError
from tests.helpers import DEMO_CONFIG, TINY, pairs

pytestmark = pytest.mark.slow


@pytest.fixture
def config(coco_file):
    def make(change=lambda content: None, **settings):
        datasets = {"DATASETS.REGISTER": [["animals", *coco_file(change)]], "DATASETS.TRAIN": ("animals",)}
        return load_config(DEMO_CONFIG, pairs({**TINY, **datasets, "DATASETS.TEST": ("animals",), **settings}))

    return make


def take(cfg, number=3):
    """The first batches of training."""
    return list(itertools.islice(train_loader(cfg), number))


def test_batches(tiny_config):
    (batch,) = take(tiny_config(), 1)

    assert len(batch) == 4
    for record in batch:
        assert record["image"].dtype == torch.uint8 and record["image"].shape[0] == 3
        boxes = record["instances"].gt_boxes.tensor
        assert boxes.shape == (len(record["instances"]), 4)


@pytest.mark.parametrize("filtered, number", [("False", 3), ("True", 2)])
def test_images_without_objects_are_used_unless_filtered(config, filtered, number):
    cfg = config(lambda content: content["annotations"].pop(1), **{"DATALOADER.FILTER_EMPTY_ANNOTATIONS": filtered})

    assert len(train_dicts(cfg)) == number
    numbers = {len(record["instances"]) for batch in take(cfg) for record in batch}
    assert numbers == ({0, 1} if filtered == "False" else {1})


@pytest.mark.parametrize("ignore_crowd", [False, True])
def test_crowd_boxes_are_no_objects_and_can_be_ignored_regions(config, ignore_crowd):
    def crowd(content):
        content["annotations"][1] |= {"iscrowd": 1, "segmentation": {"size": [48, 64], "counts": [0, 48 * 64]}}

    settings = {"MODEL.ATSS.IGNORE_CROWD": ignore_crowd, "DATALOADER.FILTER_EMPTY_ANNOTATIONS": False}
    cfg = config(crowd, **settings, **{"INPUT.MIN_SIZE_TRAIN": "(96,)", "INPUT.RANDOM_FLIP": "none"})
    records = {record["image_id"]: record for batch in take(cfg) for record in batch}

    assert [len(records[i]["instances"]) for i in range(3)] == [1, 0, 1]
    if ignore_crowd:
        assert [r["ignore_boxes"].shape for _, r in sorted(records.items())] == [(0, 4), (1, 4), (0, 4)]
        # The image was enlarged from 48 to 96 pixels, and its boxes with it.
        assert records[1]["ignore_boxes"].tolist() == [[10, 10, 50, 70]]
        assert records[1]["ignore_boxes"].dtype == torch.float32
    else:
        assert not any("ignore_boxes" in r for r in records.values())


def test_boxes_without_area_are_dropped_counted_and_reported_once(config, caplog):
    detectron2_logger._LOG_COUNTER.clear()

    def flatten(content):
        content["annotations"][0]["bbox"] = [5, 5, 0, 30]
        content["annotations"][1]["bbox"] = [5, 5, 20, -3]

    cfg = config(flatten)
    check_data(cfg)

    assert [len(d["annotations"]) for d in train_dicts(cfg)] == [0, 0, 1]
    (line,) = {r.getMessage() for r in caplog.records if "without area" in r.getMessage()}
    assert line.startswith("animals: boxes without area (2 of 3 annotations), such as ")
    check_data(cfg)
    assert sum("without area" in r.getMessage() for r in caplog.records) == 1


def test_area_in_both_box_modes():
    assert has_area({"bbox": [5, 5, 2, 2], "bbox_mode": BoxMode.XYWH_ABS})
    assert not has_area({"bbox": [5, 5, 2, 2], "bbox_mode": BoxMode.XYXY_ABS})


def test_warnings_are_logged_before_training_and_errors_stop_it(config, coco_file, caplog):
    """Also of datasets that Detectron2 reads: here, images that are in training and test data."""
    detectron2_logger._LOG_COUNTER.clear()
    path, images = coco_file()
    for name in ("registered_train", "registered_val"):
        DatasetCatalog.register(name, lambda name=name: load_coco_json(path, images, name))
    cfg = config(**{"DATASETS.TRAIN": ("registered_train",), "DATASETS.TEST": ("registered_val",)})

    check_data(cfg)

    (line,) = {r.getMessage() for r in caplog.records if r.name == "atss.data"}
    assert line.startswith("registered_train, registered_val: images in both (3 of 3 images), such as ")
    (Path(images) / "1.png").unlink()
    with pytest.raises(InputError, match=r"registered_train: missing images \(1 of 3 images\), such as .*1\.png"):
        check_data(cfg)


def test_datasets_without_any_box_and_classes_that_the_head_does_not_have_are_refused(config):
    with pytest.raises(InputError, match="animals have no box"):
        train_dicts(config(lambda c: c.update(annotations=[])))
    cfg = config().clone()
    cfg.defrost()
    cfg.MODEL.ATSS.NUM_CLASSES = 1
    with pytest.raises(InputError, match=r"1\.png.*class 1.*1 classes"):
        train_dicts(cfg)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    "damage",
    [Path.unlink, lambda path: path.write_bytes(path.read_bytes()[:60]), lambda path: path.write_bytes(b"no image")],
    ids=["missing", "truncated", "text"],
)
def test_images_that_cannot_be_read_stop_training_by_name(config, damage, workers):
    cfg = config(**{"DATALOADER.NUM_WORKERS": workers})
    path = Path(train_dicts(cfg)[1]["file_name"])
    loader = train_loader(cfg)
    damage(path)

    with pytest.raises(InputError) as caught:
        list(itertools.islice(loader, 3))

    assert str(path) in str(caught.value).splitlines()[-1]


def test_an_image_of_another_size_than_its_entry_or_without_pixels_after_resizing_is_named(config):
    with pytest.raises(InputError, match=r"1\.png.*width and height"):
        take(config(lambda c: c["images"][1].update(width=640)))

    def narrow(content):
        content["images"][1].update(width=20000, height=3)
        content["annotations"][1]["bbox"] = [0, 0, 100, 3]

    cfg = config(narrow)
    Image.new("RGB", (20000, 3)).save(train_dicts(cfg)[1]["file_name"])

    with pytest.raises(InputError, match=r"1\.png: 20000 x 3 pixels cannot be resized"):
        take(cfg)


def test_missing_files_of_built_in_datasets_are_named():
    if os.path.exists("datasets/coco"):
        pytest.skip("there is a COCO here")
    with pytest.raises(InputError, match=r"instances_val2017\.json.*DETECTRON2_DATASETS"):
        read_dataset("coco_2017_val")
