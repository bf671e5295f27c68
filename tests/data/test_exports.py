"""What programs write that is not quite COCO: it is read, evaluated and reported as the plain dataset is."""

import json
import logging

import numpy as np
import pytest
import torch
from detectron2.data import MetadataCatalog
from detectron2.structures import Boxes, Instances
from pycocotools import mask
from pycocotools.coco import COCO

from atss.data import read_dataset, register_coco_format, register_folder
from atss.evaluation.coco import RESULTS, BoxEvaluator
from atss.report.boxes import load_dataset, load_detections
from tests.helpers import TINY, train
from tests.own_data import IMAGES, as_records, records, write_coco, write_text, write_voc, write_yolo

ENCODINGS = ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"]
UTF = '<?xml version="1.0" encoding="{}"?>'
YAML = "names: [cat, dog]\ntrain: {0}images\\train\nval: {0}images\\val\n"


def read(folder):
    """dict from split to what is read, see `own_data.records`."""
    return {
        split: as_records(read_dataset(name), MetadataCatalog.get(name).thing_classes)
        for split, name in register_folder(str(folder)).items()
    }


def all_at_once(content):
    """Paths of Windows, texts as ids, the same id for all annotations, and segmentations in place of boxes."""
    sizes = [[image["height"], image["width"]] for image in content["images"]]
    for image in content["images"]:
        image |= {"id": f"image {image['id']}", "file_name": f"C:\\cells\\pictures\\{image['file_name']}"}
    for category in content["categories"]:
        category["id"] = str(category["id"])
    for i, annotation in enumerate(content["annotations"]):
        x, y, width, height = annotation.pop("bbox")
        pixels = np.zeros(sizes[annotation["image_id"]], dtype=np.uint8, order="F")
        pixels[y : y + height, x : x + width] = 1
        text = {"size": list(pixels.shape), "counts": mask.encode(pixels)["counts"].decode()}
        annotation["segmentation"] = [[x, y, x + width, y, x + width, y + height, x, y + height]] if i % 2 else text
        annotation |= {"id": 5, "image_id": f"image {annotation['image_id']}"}


def encode(folder, pattern, encoding):
    for path in folder.rglob(pattern):
        path.write_bytes(path.read_text().encode(encoding))


@pytest.fixture
def messy(tmp_path):
    write_coco(tmp_path / "messy", change=all_at_once)
    encode(tmp_path / "messy", "*.json", "utf-16")
    return tmp_path / "messy"


def test_all_at_once_is_the_plain_dataset_and_every_change_is_one_line(messy, caplog):
    caplog.set_level(logging.WARNING)

    assert read(messy) == records()

    lines = [line for line in caplog.messages if line.startswith("messy_train: ")]
    assert len(lines) == 2
    assert "images found by their names (2 of 2 images), such as 'C:\\cells\\pictures\\a.png' is 'a.png'" in lines[0]
    assert "annotations without an id of their own (2 of 3 annotations), such as annotations[1]: id 5" in lines[1]


@pytest.mark.parametrize(
    "annotations, images, prefix",
    [
        ("result.json", "images", "images\\"),
        ("result.json", "images", "..\\..\\media\\upload\\4\\"),
        ("annotations/coco.json", "images", "..\\label\\"),
        ("coco.json", ".", "D:\\cells\\"),
        ("coco.json", "pictures/all", "pictures\\all\\"),
        ("coco.json", "pictures/all", "/home/someone/"),
        ("train.json", "train", "cells\\train\\"),
    ],
)
def test_paths_of_windows_and_of_other_folders_in_layouts_of_coco(tmp_path, annotations, images, prefix):
    def change(content):
        for image in content["images"]:
            image["file_name"] = prefix + image["file_name"]

    write_coco(tmp_path, annotations, images, {"train": IMAGES["train"]}, change)

    assert read(tmp_path) == {"train": records()["train"]}


def detections_of(dicts):
    """Outputs of a detector that finds all objects, a little displaced, and one more."""
    for record in dicts:
        boxes = [[x + 1, y, x + 1 + w, y + h] for x, y, w, h in (a["bbox"] for a in record["annotations"])]
        labels = [annotation["category_id"] for annotation in record["annotations"]]
        instances = Instances((record["height"], record["width"]))
        instances.pred_boxes = Boxes(torch.tensor([*boxes, [0, 0, 9, 9]], dtype=torch.float32))
        instances.pred_classes = torch.tensor([*labels, 1])
        instances.scores = torch.linspace(0.9, 0.5, len(boxes) + 1)
        yield [record], [{"instances": instances}]


def evaluate(name, folder):
    evaluator = BoxEvaluator(name, str(folder))
    evaluator.reset()
    for inputs, outputs in detections_of(read_dataset(name)):
        evaluator.process(inputs, outputs)
    return evaluator.evaluate()["bbox"]


def test_evaluation_and_report_are_those_of_the_plain_dataset_and_the_detections_have_the_ids_of_the_file(
    messy, tmp_path
):
    write_coco(tmp_path / "plain")
    names = [register_folder(str(tmp_path / folder))["train"] for folder in ("plain", "messy")]

    plain, found = (evaluate(name, tmp_path / name) for name in names)

    assert 0 < plain["AP"] < 100 and found == pytest.approx(plain, abs=0, nan_ok=True)
    path = tmp_path / "messy_train" / RESULTS
    results = json.loads(path.read_text())
    assert {(r["image_id"], r["category_id"]) for r in results} == {
        ("image 0", "3"), ("image 0", "7"), ("image 1", "3"), ("image 1", "7"),
    }  # fmt: skip
    assert len(COCO(with_ids(messy, tmp_path)).loadRes(str(path)).anns) == len(results) == 5
    for name in names:
        dataset = load_dataset(name)
        detections, notes = load_detections(str(tmp_path / name / RESULTS), dataset)
        assert (len(dataset.objects), len(detections), notes) == (3, 5, [])


def test_the_report_reads_a_registered_file_as_training_does(messy):
    register_coco_format("registered", str(messy / "annotations/train.json"), str(messy / "train"))

    dataset = load_dataset("registered")

    assert len(dataset.objects) == 3 and dataset.files == [str(messy / "train" / name) for name in ("a.png", "b.png")]


def with_ids(messy, tmp_path):
    """Path of the messy file in UTF-8, with different ids of annotations, as pycocotools needs it."""
    content = json.loads((messy / "annotations/train.json").read_text(encoding="utf-16"))
    for number, annotation in enumerate(content["annotations"]):
        annotation["id"] = number
    write_text(tmp_path / "utf-8.json", json.dumps(content))
    return str(tmp_path / "utf-8.json")


@pytest.mark.slow
def test_all_at_once_trains_and_is_evaluated(messy, tmp_path):
    settings = {**TINY, "DATASETS.FOLDER": messy, "DATASETS.TEST": ("messy_train",), "OUTPUT_DIR": tmp_path / "out"}
    settings |= {"SOLVER.MAX_ITER": 1, "SOLVER.IMS_PER_BATCH": 2, "MODEL.ATSS.SCORE_THRESH_TEST": 0.001}

    train(settings)

    metrics = json.loads((tmp_path / "out/metrics.json").read_text().splitlines()[-1])
    assert {"bbox/AP", "bbox/AP-cat", "bbox/AP-dog", "validation/total_loss"} <= metrics.keys()
    results = json.loads((tmp_path / "out/inference" / RESULTS).read_text())
    assert {result["image_id"] for result in results} == {"image 0", "image 1"}


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_texts_with_a_byte_order_mark_and_in_utf_16(tmp_path, encoding):
    write_coco(tmp_path / "coco", "{split}/labels.json", "{split}")
    write_coco(tmp_path / "unnamed", "labels.json", "images", {"train": IMAGES["train"]})
    write_yolo(tmp_path / "yolo", yaml=YAML.format(""))
    write_yolo(tmp_path / "listed")
    write_text(tmp_path / "listed/classes.txt", "cat\ndog\n")
    for pattern in ("*.json", "*.txt", "*.yaml"):
        encode(tmp_path, pattern, encoding)

    for folder in ("coco", "yolo", "listed"):
        assert read(tmp_path / folder) == records()
    assert read(tmp_path / "unnamed") == {"train": records()["train"]}
    assert len(BoxEvaluator("coco_train", str(tmp_path))._coco_api.anns) == 3


@pytest.mark.parametrize(
    "encoding, declared",
    [("utf-8-sig", ""), ("utf-8-sig", UTF.format("utf-8")), ("utf-16", ""), ("utf-16", UTF.format("utf-16")),
     ("utf-16", UTF.format("utf-8")), ("utf-16-le", UTF.format("utf-8"))],
)  # fmt: skip
def test_xml_files_with_a_byte_order_mark_and_in_utf_16_whatever_they_declare(tmp_path, encoding, declared):
    write_voc(tmp_path)
    for path in (tmp_path / "Annotations").iterdir():
        path.write_bytes((declared + path.read_text()).encode(encoding))
    encode(tmp_path / "ImageSets", "*.txt", encoding)

    assert read(tmp_path) == records()
