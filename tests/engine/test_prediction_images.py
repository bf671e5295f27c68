"""Images of predictions while training goes on."""

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model
from detectron2.utils.events import EventStorage

from atss.data import read_dataset
from atss.engine.prediction_images import PredictionImages


@pytest.fixture
def images(tiny_config):
    cfg = tiny_config({"VIS_PERIOD": 10})
    return PredictionImages.of(cfg, build_model(cfg), read_dataset("tiny_val")[:2])


def test_they_are_put_where_tensorboard_looks_for_them(images):
    images.trainer = type("Trainer", (), {"iter": 0})
    with EventStorage(0) as storage:
        for images.trainer.iter in range(20):
            storage.iter = images.trainer.iter
            images.after_step()

    names, written, iterations = zip(*storage._vis_data, strict=True)
    ids = [f"predictions/{record['image_id']}" for record in images.records]
    assert list(names) == ids * 2 and list(iterations) == [9, 9, 19, 19]
    assert all(image.dtype == torch.uint8 and image.shape[0] == 3 for image in written)


def test_objects_are_on_the_left_and_predictions_on_the_right(images):
    drawn = images.draw(images.records[0])
    bare = images.draw({**images.records[0], "annotations": []})

    half = drawn.shape[1] // 2
    assert (drawn[:, :half] != bare[:, :half]).any()
    assert (drawn[:, half:] == bare[:, half:]).all()


def test_the_model_goes_on_training(images):
    images.model.train()
    before = {key: value.clone() for key, value in images.model.state_dict().items()}

    assert isinstance(images.draw(images.records[0]), np.ndarray)

    assert images.model.training
    assert all(torch.equal(value, before[key]) for key, value in images.model.state_dict().items())
