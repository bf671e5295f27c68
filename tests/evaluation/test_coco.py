"""The evaluator against Detectron2's own with pycocotools, whose metrics it must equal to the last bit."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog
from detectron2.data.datasets import load_coco_json
from detectron2.evaluation import COCOEvaluator
from detectron2.structures import Boxes, Instances

from atss.data import register_coco_format
from atss.evaluation import build_coco_evaluator, coco
from atss.evaluation.coco import BoxEvaluator, evaluate_boxes, index_coco

pytestmark = pytest.mark.usefixtures("library")


@pytest.fixture(params=["hotcoco", "pycocotools"])
def library(request, monkeypatch):
    """Run every test with hotcoco, and as if it were not installed."""
    if request.param == "pycocotools":
        monkeypatch.setattr(coco, "hotcoco", None)


def instances(boxes, classes, scores=None, size=(48, 64)):
    found = Instances(size)
    found.pred_boxes = Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4))
    found.scores = torch.linspace(0.9, 0.5, len(boxes)) if scores is None else torch.tensor(scores, dtype=torch.float32)
    found.pred_classes = torch.tensor(classes, dtype=torch.int64)
    return found


@pytest.fixture
def evaluate(tiny_config, coco_file, tmp_path):
    def run(find, change=lambda content: None):
        register_coco_format("animals", *coco_file(change))
        evaluator = build_coco_evaluator(tiny_config({"OUTPUT_DIR": tmp_path}), "animals")
        return evaluated(evaluator, {record["image_id"]: find(record) for record in DatasetCatalog.get("animals")})

    return run


def evaluated(evaluator, found, **options):
    """Return the metrics of an evaluator for {image id: Instances}."""
    evaluator.reset()
    for image_id, detections in found.items():
        evaluator.process([{"image_id": image_id}], [{"instances": detections}])
    return evaluator.evaluate(**options).get("bbox")


def correct(record):
    x, y, w, h = record["annotations"][0]["bbox"]
    return instances([[x, y, x + w, y + h]], [record["annotations"][0]["category_id"]])


def without_area_and_iscrowd(content):
    for annotation in content["annotations"]:
        del annotation["area"], annotation["iscrowd"]


@pytest.mark.parametrize("change", [lambda content: None, without_area_and_iscrowd])
def test_perfect_boxes_have_an_ap_of_100(evaluate, change, tmp_path):
    """Also with annotation ids from 0, which means "no match" in pycocotools."""
    results = evaluate(correct, change)

    assert results["AP"] == pytest.approx(100) and results["AP50"] == pytest.approx(100)
    written = json.loads((tmp_path / "inference/coco_instances_results.json").read_text())
    assert [(r["image_id"], r["category_id"], r["bbox"]) for r in written] == [
        (i, (3, 7)[i % 2], [5, 5, 20, 30]) for i in range(3)
    ]


def test_a_detection_of_the_wrong_class_is_a_false_positive(evaluate):
    """A cat, a dog detected as a cat, a cat: precision 1 up to half of the recall, 2/3 beyond, at 101 points."""
    results = evaluate(lambda record: instances([[5, 5, 25, 35]], [0]))

    assert results["AP-cat"] == pytest.approx(100 * (51 + 50 * 2 / 3) / 101) and results["AP-dog"] == 0


@pytest.mark.parametrize(
    "found, annotations, classes",
    [(instances([], []), None, []), (instances([[5, 5, 25, 35]], [0]), [], ["AP-cat", "AP-dog"])],
    ids=["no detections", "no ground truth"],
)
def test_without_detections_or_ground_truth_metrics_are_nan(evaluate, found, annotations, classes):
    def change(content):
        content["annotations"] = content["annotations"] if annotations is None else annotations

    results = evaluate(lambda record: found, change)

    assert list(results) == ["AP", "AP50", "AP75", "APs", "APm", "APl", *classes]
    assert np.isnan(list(results.values())).all()


def test_detections_of_a_file_without_annotations_are_written(evaluate, tmp_path):
    assert evaluate(lambda record: instances([[5, 5, 25, 35]], [1]), lambda content: content.pop("annotations")) is None
    written = json.loads((tmp_path / "inference/coco_instances_results.json").read_text())
    assert [r["category_id"] for r in written] == [7, 7, 7]


def test_an_image_of_another_dataset_is_refused(evaluate, tmp_path):
    evaluate(correct)
    with pytest.raises(ValueError, match=r"not in the dataset: \[99\]"):
        evaluated(BoxEvaluator("animals", tmp_path), {0: instances([], []), 99: instances([[5, 5, 25, 35]], [0])})


CATEGORIES = [2, 3, 5, 7, 11]


def random_images(seed, num_images=25):
    """Generate COCO-format content and {image id: Instances} that exercise all of COCO's rules.

    Crowds, duplicate objects, areas that differ from the box's, entries without area and iscrowd, annotation ids from
    0, a class without objects, images without objects or without detections, one with 150 detections of a class, many
    equal scores, and image ids that differ only as integers, not as floats.
    """
    random = np.random.default_rng(seed)
    image_ids = [2**53 + i for i in random.permutation(num_images).tolist()]
    content = {
        "images": [{"id": i, "file_name": f"{i}.png", "width": 400, "height": 300} for i in image_ids],
        "categories": [{"id": i, "name": f"class {i}"} for i in CATEGORIES],
        "annotations": [],
    }
    found = {}
    for place, image_id in enumerate(image_ids):
        count = 0 if place == 0 else random.integers(1, 9)
        boxes, classes = random_boxes(random, count), random.integers(0, 4, count)
        boxes, classes = np.concatenate([boxes, boxes[:1]]), np.concatenate([classes, classes[:1]])
        for box, index in zip(boxes.tolist(), classes.tolist(), strict=True):
            annotation = {"id": len(content["annotations"]), "image_id": image_id, "category_id": CATEGORIES[index]}
            annotation["bbox"] = [box[0], box[1], box[2] - box[0], box[3] - box[1]]
            if random.random() < 0.7:
                annotation["area"] = annotation["bbox"][2] * annotation["bbox"][3] * float(random.uniform(0.4, 1))
            if random.random() < 0.7:
                annotation["iscrowd"] = int(random.random() < 0.3)
            content["annotations"].append(annotation)

        # Near an object, exactly on it, or anywhere.
        near = np.repeat(np.arange(len(boxes)), 0 if place == 1 else 4)
        shift = random.normal(0, 0.08, (len(near), 4)) * (random.random((len(near), 1)) < 0.8)
        shifted = boxes[near] + shift * np.tile(boxes[near, 2:] - boxes[near, :2], 2)
        guessed = np.where(random.random(len(near)) < 0.8, classes[near], random.integers(0, 5, len(near)))
        beside = {1: 0, 2: 150}.get(place, 10)
        shifted = np.concatenate([shifted, random_boxes(random, beside)])
        guessed = np.concatenate([guessed, classes[:1].repeat(beside) if len(classes) else np.zeros(beside, int)])
        found[image_id] = instances(shifted, guessed, random.integers(1, 12, len(shifted)) / 12, (300, 400))
    return content, found


def random_boxes(random, count):
    corners = random.uniform(0, 200, (count, 2))
    return np.concatenate([corners, corners + np.exp(random.uniform(np.log(8), np.log(180), (count, 2)))], axis=1)


@pytest.fixture
def both(tmp_path):
    """Function: content, limit -> the project's evaluator, and Detectron2's with pycocotools."""

    def make(content, max_dets_per_image=None):
        # pycocotools cannot read missing entries, and takes an id of 0 for "no match".
        complete = copy.deepcopy(content)
        for annotation in complete["annotations"]:
            annotation["id"] += 1
            annotation.setdefault("area", annotation["bbox"][2] * annotation["bbox"][3])
            annotation.setdefault("iscrowd", 0)
        for name, data in {"plain": content, "complete": complete}.items():
            path = str(tmp_path / f"{name}.json")
            Path(path).write_text(json.dumps(data))
            register_coco_format(name, path, "")
            load_coco_json(path, "", name)
        limit = {"max_dets_per_image": max_dets_per_image}
        theirs = COCOEvaluator("complete", ("bbox",), output_dir=f"{tmp_path}/theirs", use_fast_impl=False, **limit)
        return BoxEvaluator("plain", f"{tmp_path}/ours", **limit), theirs

    return make


def table(output):
    return [line for line in output.splitlines() if line.startswith(" Average")]


def same(metrics):
    return pytest.approx(metrics, rel=0, abs=0, nan_ok=True)


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("limit", [None, 20, 300])
def test_metrics_equal_those_of_pycocotools(seed, limit, both, capsys, tmp_path):
    content, found = random_images(seed)
    ours, theirs = both(content, limit)

    results, printed = evaluated(ours, found), table(capsys.readouterr().out)
    expected, expected_table = evaluated(theirs, found), table(capsys.readouterr().out)

    assert results == same(expected) and list(results) == list(expected)
    assert printed == expected_table and len(printed) == 12
    written = [(tmp_path / name / "coco_instances_results.json").read_text() for name in ("ours", "theirs")]
    assert written[0] == written[1]
    # Otherwise the comparison would prove little.
    assert 5 < results["AP"] < 95 and results["AP50"] > results["AP75"] + 1 and np.isnan(results["AP-class 11"])


def test_metrics_of_a_subset_of_images_equal_those_of_pycocotools(both):
    """Before and after it, the same evaluator gives the same metrics of all images."""
    content, found = random_images(0)
    ours, theirs = both(content)
    some = [image["id"] for image in content["images"][::2]]

    before, results, after = (evaluated(ours, found, img_ids=ids) for ids in (None, some, None))

    assert results == same(evaluated(theirs, found, img_ids=some))
    assert before == same(after) and results["AP"] != after["AP"]


@pytest.mark.parametrize("later, ap50", [("right", 100 * 51 / 101), ("left", 100)])
def test_equal_ious_match_the_later_object(later, ap50, both):
    """A detection half-way between two objects, then one that can only match the right object."""
    content, _ = random_images(0, 1)
    image_id, boxes = content["images"][0]["id"], {"left": [0, 0, 10, 10], "right": [4, 0, 10, 10]}
    content["annotations"] = [
        {"id": i, "image_id": image_id, "category_id": 2, "bbox": boxes[side]}
        for i, side in enumerate(sorted(boxes, key=lambda side: side == later))
    ]
    found = {image_id: instances([[2, 0, 12, 10], [4, 0, 14, 10]], [0, 0])}
    ours, theirs = both(content)

    results = evaluated(ours, found)

    assert results == same(evaluated(theirs, found)) and results["AP50"] == pytest.approx(ap50)


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["crowds", "areas", "equal scores", "limit"])
def test_the_random_images_exercise_every_rule(rule):
    """Most of the random sets have other metrics without the subject of the rule, or with another limit."""
    differ = []
    for seed in range(10):
        content, found = random_images(seed)
        results = coco_results(found)
        before = precisions(content, results)
        for annotation in content["annotations"]:
            annotation.pop({"crowds": "iscrowd", "areas": "area"}.get(rule), None)
        if rule == "equal scores":
            results.reverse()
        differ.append(not np.array_equal(before, precisions(content, results, 300 if rule == "limit" else 100)))
    assert sum(differ) > 5


def coco_results(found):
    return [
        {"image_id": image_id, "category_id": CATEGORIES[index], "bbox": [x1, y1, x2 - x1, y2 - y1], "score": score}
        for image_id, d in found.items()
        for (x1, y1, x2, y2), index, score in zip(
            d.pred_boxes.tensor.tolist(), d.pred_classes.tolist(), d.scores.tolist(), strict=True
        )
    ]


def precisions(content, results, limit=100):
    return evaluate_boxes(index_coco(content), results, (1, 10, limit)).eval["precision"]


@pytest.mark.parametrize("shift", [0, -1000])
def test_ids_may_be_negative_and_entries_may_have_other_keys(shift):
    """hotcoco refuses negative ids; pycocotools evaluates them."""
    content, found = random_images(3)
    results = coco_results(found)
    expected = precisions(content, results)
    # Of equal scores those of lower image ids come first: the order of the ids stays.
    renamed = {i: place + shift for place, i in enumerate(sorted(image["id"] for image in content["images"]))}
    content["images"] = [{"id": renamed[image["id"]], "license": None} for image in content["images"]]
    for entry in [*content["annotations"], *results]:
        entry.update(image_id=renamed[entry["image_id"]], attributes={"occluded": True})

    assert np.array_equal(precisions(content, results), expected)


def test_results_are_not_modified_and_may_come_from_a_file_or_hold_numpy_numbers(tmp_path):
    content, found = random_images(4)
    results = coco_results(found)
    (tmp_path / "results.json").write_text(json.dumps(results))
    before = copy.deepcopy(results)
    of_numpy = [
        {**r, "image_id": np.int64(r["image_id"]), "category_id": np.int32(r["category_id"]),
         "bbox": list(np.array(r["bbox"])), "score": np.float32(r["score"])}
        for r in results
    ]  # fmt: skip

    precision = precisions(content, results)

    assert results == before
    assert np.array_equal(precisions(content, str(tmp_path / "results.json")), precision)
    assert np.array_equal(precisions(content, of_numpy), precision)


def test_without_results_precision_is_zero_where_there_is_ground_truth():
    assert set(np.unique(precisions(random_images(6)[0], []))) == {-1.0, 0.0}
