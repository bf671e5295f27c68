"""sahi's AutoDetectionModel runs a trained model, whole and in slices."""

import os
from unittest.mock import patch

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model

from atss.predictor import Predictor

pytest.importorskip("sahi")

from sahi import AutoDetectionModel
from sahi.predict import get_prediction, get_sliced_prediction

import atss.sahi  # noqa: F401

FIRES = {"MODEL.ATSS.SCORE_THRESH_TEST": 0.005, "MODEL.ATSS.TOPK_CANDIDATES_TEST": 30}


@pytest.fixture
def predictor(tiny_config, tmp_path):
    cfg = tiny_config(FIRES)
    torch.manual_seed(0)
    torch.save({"model": build_model(cfg).state_dict()}, tmp_path / "model.pth")
    (tmp_path / "config.yaml").write_text(cfg.dump())
    return Predictor.load(tmp_path / "config.yaml", tmp_path / "model.pth")


@pytest.fixture
def model(predictor, tmp_path):
    paths = {"config_path": str(tmp_path / "config.yaml"), "model_path": str(tmp_path / "model.pth")}
    with patch.dict(os.environ):  # for the device "cpu", sahi hides all GPUs
        return AutoDetectionModel.from_pretrained("atss", **paths, device="cpu", confidence_threshold=0.0)


IMAGE = np.random.default_rng(0).integers(0, 256, (96, 160, 3), dtype=np.uint8)


def test_the_boxes_of_an_image_are_those_of_the_predictor(model, predictor):
    found = get_prediction(IMAGE, model).object_prediction_list
    expected = predictor.predict(IMAGE[:, :, ::-1], min_score=0.0)  # sahi gives images in RGB order

    assert len(found) == len(expected) > 10
    np.testing.assert_allclose([p.bbox.to_xyxy() for p in found], expected.boxes, atol=1e-3)
    assert [p.score.value for p in found] == pytest.approx(expected.scores.tolist())
    assert [p.category.name for p in found] == expected.names


def test_slices_are_shifted_to_their_place(model, predictor):
    options = {"slice_height": 96, "slice_width": 80, "overlap_height_ratio": 0, "overlap_width_ratio": 0}
    options |= {"perform_standard_pred": False, "postprocess_type": "NMS", "postprocess_match_metric": "IOU"}
    options["postprocess_match_threshold"] = 1.0  # nothing is merged

    found = get_sliced_prediction(IMAGE, model, **options, batch_size=2, verbose=0).object_prediction_list

    halves = [predictor.predict(IMAGE[:, half, ::-1], min_score=0.0) for half in (slice(80), slice(80, 160))]
    halves[1].boxes[:, ::2] += 80
    expected = np.concatenate([half.boxes for half in halves])
    assert len(found) == len(expected)
    np.testing.assert_allclose(sorted(p.bbox.to_xyxy() for p in found), sorted(expected.tolist()), atol=0.01)
