"""Validation losses: those of the model in evaluation mode, averaged over the images."""

import copy

import pytest
import torch
from detectron2.modeling import build_model

from atss.config import load_config
from atss.data import read_dataset, validation_loader
from atss.data.mapper import BoxDatasetMapper
from atss.data.resize import EvalResize
from atss.evaluation import validation_losses
from tests.helpers import DEMO_CONFIG, TINY, pairs


def test_losses_are_means_over_the_images(tiny_config):
    cfg = tiny_config({"SOLVER.IMS_PER_BATCH": 3})  # 8 images: the last batch is smaller
    model = build_model(cfg)

    found = validation_losses(model, validation_loader(cfg, "tiny_val"))

    mapper = BoxDatasetMapper(cfg, True, augmentations=[EvalResize.of(cfg)])
    records = [mapper(record) for record in read_dataset("tiny_val")]
    expected = {"loss_cls": 0.0, "loss_box": 0.0, "loss_centerness": 0.0}
    with torch.no_grad():
        for batch in (records[:3], records[3:6], records[6:]):
            for name, loss in model.eval().losses(batch).items():
                expected[name] += float(loss) * len(batch) / 8
    assert found == pytest.approx({"total_loss": sum(expected.values()), **expected}, rel=1e-5)


@pytest.mark.parametrize("training", [True, False])
def test_the_model_is_unchanged(tiny_config, training):
    cfg = tiny_config()
    model = build_model(cfg).train(training)
    before = copy.deepcopy(model.state_dict())

    validation_losses(model, validation_loader(cfg, "tiny_val"))

    assert model.training is training
    after = model.state_dict()  # includes batch statistics
    assert all(torch.equal(after[key], before[key]) for key in after)


def test_images_have_their_test_size_and_all_objects(tiny_config):
    cfg = tiny_config({"INPUT.MIN_SIZE_TEST": 96, "INPUT.MAX_SIZE_TEST": 128})

    records = [record for batch in validation_loader(cfg, "tiny_val") for record in batch]

    assert all(min(record["image"].shape[1:]) <= 96 for record in records)
    objects = [sum(not a.get("iscrowd") for a in record["annotations"]) for record in read_dataset("tiny_val")]
    assert [len(record["instances"]) for record in records] == objects


@pytest.mark.parametrize("filtered", [True, False])
def test_a_dataset_without_objects_has_no_losses(coco_file, filtered):
    entries = [["tests_only", *coco_file(lambda content: content.update(annotations=[]))]]
    datasets = {"DATASETS.REGISTER": entries, "DATASETS.TRAIN": "()", "DATASETS.TEST": ("tests_only",)}
    cfg = load_config(DEMO_CONFIG, pairs({**TINY, **datasets, "DATALOADER.FILTER_EMPTY_ANNOTATIONS": filtered}))

    assert validation_losses(build_model(cfg), validation_loader(cfg, "tests_only")) == {}


def test_processes_have_the_same_number_of_batches_of_different_images(tiny_config, monkeypatch):
    cfg, seen = tiny_config({"SOLVER.IMS_PER_BATCH": 3}), []
    monkeypatch.setattr("detectron2.utils.comm.get_world_size", lambda: 3)
    for rank in range(3):
        monkeypatch.setattr("detectron2.utils.comm.get_rank", lambda rank=rank: rank)
        seen.append([[record["image_id"] for record in batch] for batch in validation_loader(cfg, "tiny_val")])

    assert [[len(batch) for batch in batches] for batches in seen] == [[1, 1]] * 3, "6 of 8 images"
    assert len({image for batches in seen for batch in batches for image in batch}) == 6
