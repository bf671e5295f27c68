import json
from unittest.mock import Mock

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from atss.data import shapes
from atss.data.catalog import load
from atss.data.coco import coco_source
from atss.errors import InputError


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shapes") / "train"
    shapes.generate(folder, 200, seed=1)
    return folder, json.loads((folder.parent / "train.json").read_text())


def test_the_seed_determines_the_images(drawn, tmp_path):
    folder, content = drawn
    shapes.generate(tmp_path / "again", 5, seed=1)
    again = json.loads((tmp_path / "again.json").read_text())

    assert again["annotations"] == [a for a in content["annotations"] if a["image_id"] < 5]
    for name in (image["file_name"] for image in again["images"]):
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes()
    first, second = (np.asarray(shapes.draw(np.random.default_rng([seed, 0]))[0]) for seed in (1, 2))
    assert first.shape != second.shape or (first != second).any()


def test_objects_of_every_kind(drawn):
    """Sides from 8 pixels to most of the image, aspect ratios to 4:1, all classes, empty and crowded images."""
    _, content = drawn
    sides = np.array([a["bbox"][2:] for a in content["annotations"]])
    ratios = sides[:, 0] / sides[:, 1]
    counts = np.bincount([a["image_id"] for a in content["annotations"]], minlength=len(content["images"]))

    assert sides.min() == 8 and sides.max() > 120
    assert 3.5 < ratios.max() < 4.8 and 3.5 < 1 / ratios.min() < 4.8
    assert set(np.bincount([a["category_id"] for a in content["annotations"]])[1:] > 60) == {True}
    assert [c["name"] for c in content["categories"]] == list(shapes.CLASSES)
    assert (counts == 0).sum() >= 3 and (counts >= 8).sum() >= 10


def test_objects_overlap(drawn):
    _, content = drawn
    overlaps = 0
    for image in content["images"]:
        boxes = [a["bbox"] for a in content["annotations"] if a["image_id"] == image["id"]]
        for i, (x, y, w, h) in enumerate(boxes):
            overlaps += any(x < u + s and u < x + w and y < v + t and v < y + h for u, v, s, t in boxes[:i])
    assert overlaps > 30


def test_the_images_of_the_study_are_full_of_overlapping_and_long_objects():
    images = [shapes.draw(np.random.default_rng([0, i]), shapes.CLUTTER) for i in range(100)]
    boxes = [[box for _, box in objects] for _, objects in images]

    overlaps = [shapes.iou(a, b) for found in boxes for i, a in enumerate(found) for b in found[:i]]
    ratios = [(x2 - x1) / (y2 - y1) for found in boxes for x1, y1, x2, y2 in found]
    assert {image.size for image, _ in images} == {(128, 128)}
    assert min(map(len, boxes)) >= 1 and 4 < sum(map(len, boxes)) / 100 < 8
    assert sum(iou > 0.1 for iou in overlaps) > 50 and max(overlaps) <= 0.5
    assert sum(max(ratio, 1 / ratio) > 3 for ratio in ratios) > 50


def test_boxes_fit_the_drawn_pixels():
    for seed in range(30):
        for label in range(len(shapes.CLASSES)):
            (x1, y1, x2, y2), mask = shapes.shape_mask(np.random.default_rng(seed), label, 160, 192, (10, 128), 4)
            assert 0 <= x1 < x2 <= 160 and 0 <= y1 < y2 <= 192
            assert mask.shape == (y2 - y1, x2 - x1)
            assert all(line.any() for line in (mask[0], mask[-1], mask[:, 0], mask[:, -1]))


def test_filled_and_outlined_shapes_differ_in_their_middle():
    for name, filled in (("disc", True), ("ring", False), ("box", True), ("frame", False)):
        label = shapes.CLASSES.index(name)
        _, mask = shapes.shape_mask(np.random.default_rng(3), label, 160, 160, (60, 61), 4)
        assert mask[mask.shape[0] // 2, mask.shape[1] // 2] == filled


def test_files_are_in_coco_format(drawn):
    folder, _ = drawn
    dicts = load("shapes_test", coco_source(f"{folder}.json", str(folder)))

    assert len(dicts) == 200
    with Image.open(dicts[7]["file_name"]) as image:
        assert image.size == (dicts[7]["width"], dicts[7]["height"])


def test_registered_with_their_classes():
    for name in ("shapes_train", "shapes_val", "clutter_train", "clutter_val"):
        assert name in DatasetCatalog.list()
        assert MetadataCatalog.get(name).thing_classes == list(shapes.CLASSES)


def test_written_once_and_drawn_again_when_the_drawing_has_changed(tmp_path, monkeypatch):
    monkeypatch.setattr(shapes, "generate", Mock(wraps=shapes.generate))

    for version, calls in ((1, 1), (1, 1), (2, 2)):
        monkeypatch.setattr(shapes, "VERSION", version)
        assert len(shapes.read(tmp_path / "val", 3, 1, shapes.SHAPES).coco["images"]) == 3
        assert shapes.generate.call_count == calls


def test_an_interrupted_run_leaves_nothing(tmp_path, monkeypatch):
    drawn = shapes.draw(np.random.default_rng(0))
    monkeypatch.setattr(shapes, "draw", Mock(side_effect=[drawn, drawn, KeyboardInterrupt]))
    with pytest.raises(KeyboardInterrupt):
        shapes.generate(tmp_path / "val", 5, 1)

    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")

    with pytest.raises(InputError, match="file"):
        shapes.read(tmp_path / "file" / "val", 3, 1, shapes.SHAPES)
