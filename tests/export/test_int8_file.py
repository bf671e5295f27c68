"""`model_int8.onnx`, which `tools/export_model.py --int8` has written beside `model.onnx`."""

import json
import os
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx.numpy_helper import to_array
from torchvision.ops import box_iou

from atss.commands import export as command
from atss.data import register_coco_format
from atss.data.image_io import read_image
from atss.errors import InputError
from atss.export.onnx_file import load_onnx

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def models(exported):
    """The float model and that of integers."""
    return [onnx.load(exported / name) for name in ("model.onnx", "model_int8.onnx")]


def test_a_program_uses_it_as_the_float_model(models):
    first, second = ((m.graph.input, m.graph.output, sorted(map(str, m.metadata_props))) for m in models)

    assert first == second


def test_convolutions_but_the_predictors_have_weights_of_7_bits_per_channel(models):
    _, model = models
    makers = {output: node for node in model.graph.node for output in node.output}
    arrays = {tensor.name: tensor for tensor in model.graph.initializer}
    convolutions = [node.input[1] for node in model.graph.node if node.op_type == "Conv"]
    in_float = {name for name in convolutions if name in arrays}
    head = "detector.head"
    assert in_float == {f"{head}.{name}.weight" for name in ("class_logits", "box_deltas", "centerness")}
    for name in set(convolutions) - in_float:
        values, scales, _ = (to_array(arrays[name]) for name in makers[name].input)
        assert values.dtype == np.int8 and abs(values.astype(int)).max() <= 64
        assert scales.shape == values.shape[:1]


def matched(outputs, others):
    """Share of the boxes of an image that others have, too: of the same class, with an IoU above 0.5."""
    (boxes, scores, classes), (other_boxes, other_scores, other_classes) = outputs, others
    found = (scores > 0) & (scores >= scores[0] / 2)
    overlap = box_iou(boxes[found], other_boxes) * ((classes[found, None] == other_classes) & (other_scores > 0))
    return (overlap.amax(1) > 0.5).float().mean()


def load_in_openvino(path):
    pytest.importorskip("openvino")
    from atss.export.openvino_file import load_openvino

    return load_openvino(path)


@pytest.mark.parametrize("load", [load_onnx, load_in_openvino])
def test_it_finds_the_boxes_of_the_float_model(exported, shapes, load):
    expected, found = load_onnx(exported / "model.onnx"), load(exported / "model_int8.onnx")
    shares = []
    for path in Path(shapes["DATASETS.REGISTER"][1][2]).iterdir():
        image = torch.from_numpy(read_image(path).transpose(2, 0, 1).copy())[None]
        outputs = ([values[0] for values in run(image, torch.tensor([image.shape[2:]]))] for run in (expected, found))
        shares.append(matched(*outputs))

    assert len(shares) == 8 and np.mean(shares) > 0.5


@pytest.mark.parametrize("after, bound, is_written", [(49.5, 1.0, True), (48.5, 1.0, False), (48.5, 2.0, True),
                                                      (float("nan"), 1.0, False)])  # fmt: skip
def test_too_low_an_ap_is_refused(exported, monkeypatch, tmp_path, capsys, after, bound, is_written):
    monkeypatch.setattr("atss.export.int8_file.save_int8", lambda path, int8_path, images: None)
    monkeypatch.setattr("atss.export.accuracy.measure", lambda *_: [(50.0, 4.0), (after, 2.0)])
    monkeypatch.setattr(os.path, "getsize", lambda path: 1e6)
    arguments = None, str(exported / "model.onnx"), "cells_val", bound, [], "cells_train", []

    if is_written:
        command.add_int8(*arguments)
    else:
        with pytest.raises(InputError, match=r"--int8 cells_val: AP falls from 50\.00 to .*--max-ap-drop"):
            command.add_int8(*arguments)
    assert f"int8: AP {after:.2f}, 1.0 MB, 2.0 ms per image" in capsys.readouterr().out


def test_it_is_calibrated_with_images_of_the_whole_training_set(tiny_config):
    records, source, paths = command.datasets_for_int8(tiny_config(), "tiny_val")

    assert len(records) == 8 and source == "tiny_train" and len(paths) == len(set(paths)) == 24
    assert command.spread(range(1000), 100) == list(range(0, 1000, 10))

    _, source, paths = command.datasets_for_int8(tiny_config({"DATASETS.TRAIN": "()"}), "tiny_val")
    assert source == "tiny_val" and len(paths) == 8


BAD = {
    "no such dataset": ("nowhere", "no dataset named 'nowhere'"),
    "other classes": ("pets", "--int8 pets: its classes are cat, dog, and not those of the model"),
    "no annotations": ("bare", "--int8 bare: has no annotations"),
    "no images to calibrate with": ("tiny_val", r'dataset gone.*calibrate with tiny_val: DATASETS\.TRAIN "\(\)"'),
}


@pytest.mark.parametrize("name, message", BAD.values(), ids=BAD)
def test_bad_datasets_are_named(tiny_config, shapes, coco_file, tmp_path, name, message):
    cfg = tiny_config().clone()
    cfg.defrost()
    cfg.DATASETS.TRAIN = ("gone",)
    _, annotations, images = shapes["DATASETS.REGISTER"][1]
    (tmp_path / "bare.json").write_text(json.dumps({**json.loads(Path(annotations).read_text()), "annotations": []}))
    register_coco_format("pets", *coco_file())
    register_coco_format("bare", str(tmp_path / "bare.json"), images)

    with pytest.raises(InputError, match=message):
        command.datasets_for_int8(cfg, name)
