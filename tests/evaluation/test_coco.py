import pytest
import torch
from detectron2.data import DatasetCatalog
from detectron2.structures import Boxes, Instances

from atss.data import register_coco_format
from atss.evaluation import build_coco_evaluator


def instances(boxes, classes, size=(48, 64)):
    found = Instances(size)
    found.pred_boxes = Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4))
    found.scores = torch.linspace(0.9, 0.5, len(boxes))
    found.pred_classes = torch.tensor(classes, dtype=torch.int64)
    return found


@pytest.fixture
def evaluate(tiny_config, coco_file, tmp_path):
    def run(find, change=lambda content: None):
        register_coco_format("animals", *coco_file(change))
        cfg = tiny_config({"OUTPUT_DIR": tmp_path})
        evaluator = build_coco_evaluator(cfg, "animals")
        evaluator.reset()
        for record in DatasetCatalog.get("animals"):
            evaluator.process([record], [{"instances": find(record)}])
        return evaluator.evaluate()["bbox"]

    return run


def right(record):
    x, y, w, h = record["annotations"][0]["bbox"]
    return instances([[x, y, x + w, y + h]], [record["annotations"][0]["category_id"]])


def test_perfect_boxes_have_an_ap_of_100(evaluate, tmp_path):
    """Also where ids of annotations start from 0, which pycocotools takes for "not found"."""
    results = evaluate(right)

    assert results["AP"] == pytest.approx(100) and results["AP50"] == pytest.approx(100)
    assert (tmp_path / "inference/coco_instances_results.json").is_file()


def test_a_wrong_class_counts(evaluate):
    """A cat, a dog taken for a cat, a cat: precision 1 up to half of the recall, 2/3 beyond, at 101 points."""
    results = evaluate(lambda record: instances([[5, 5, 25, 35]], [0]))

    assert results["AP-cat"] == pytest.approx(100 * (51 + 50 * 2 / 3) / 101) and results["AP-dog"] == 0


def test_files_without_area_and_iscrowd_can_be_evaluated(evaluate):
    def strip(content):
        for annotation in content["annotations"]:
            del annotation["area"], annotation["iscrowd"]

    assert evaluate(right, strip)["AP"] == pytest.approx(100)
