"""The whole page, for runs with everything and for runs that lack something."""

import base64
import copy
import html
import json
import math
import os
import re
from pathlib import Path

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from atss.config import load_config
from atss.errors import InputError
from atss.report import write_report
from tests.helpers import DEMO_CONFIG
from tests.report.runs import NAMES, annotation, content_of, evaluated, log, make_run, random_boxes, result, whole_run

CONTENT, RESULTS = random_boxes(0)


def report(folder):
    """Write the report; return its HTML, and its visible text."""
    path = write_report(folder)
    assert path == os.path.join(folder, "report.html")
    page = Path(path).read_text(encoding="utf-8")
    body = re.sub(r"<style>.*?</style>", "", page, flags=re.DOTALL)
    return page, " ".join(html.unescape(re.sub(r"<[^>]*>", " ", body)).split())


def headings(page):
    return [html.unescape(text) for text in re.findall(r"<h[24][^>]*>(.*?)</h[24]>", page)]


@pytest.fixture
def quick(monkeypatch):
    """Charts are not encoded: for tests that do not depend on how they look."""
    monkeypatch.setattr("atss.report.theme.encode", lambda figure: (b"<svg/>", "svg"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run with everything, and its report."""
    folder = whole_run(tmp_path_factory.mktemp("whole"))
    (folder / "report").mkdir()
    (folder / "report/missed_8.jpg").write_text("of an earlier report")
    (folder / "report/notes.txt").write_text("somebody's")
    return folder, *report(folder)


@pytest.mark.slow
def test_a_complete_run_has_every_section(whole):
    _, page, text = whole

    shown = headings(page)
    assert shown[:2] == ["made_0", "Training"]
    assert set(shown) >= {
        "Total loss", "Classification loss", "Box loss", "Centerness loss", "Learning rate", "AP", "Calibration",
        "Precision and recall", "F1 over the score threshold", "AP by size of the object", "AP of the classes",
        "Best score thresholds", "Confusion matrix", "Ground truth and detections", "Errors", "Definitions",
        "Outcomes of detections", "Outcomes of ground truth", "AP that errors cost (TIDE)",
    }  # fmt: skip
    assert "best AP during training 31.5, after 1,200 iterations" in text and "12 images" in text
    assert "Training time 10 min" in text and "0.5 s per iteration, 16 images per second" in text
    assert "omitted" not in text


def test_images_in_the_page_equal_the_files_and_have_a_text_and_a_size(whole):
    folder, page, _ = whole

    sources = [html.unescape(source) for source in re.findall(r'<img src="([^"]*)"', page)]
    inside = sorted(base64.b64decode(source.split(",", 1)[1]) for source in sources)
    files = [path for path in (folder / "report").iterdir() if path.suffix != ".txt"]
    assert inside == sorted(path.read_bytes() for path in files) and len(inside) > 40
    assert {path.suffix for path in files} <= {".svg", ".png", ".jpg"}
    assert (folder / "report/notes.txt").exists()
    images = re.findall(r"<img [^>]*>", page)
    assert all(re.search(r' alt="[^"]+" width="\d+" height="\d+"', image) for image in images)


def test_the_page_has_no_external_links_and_class_names_are_escaped(whole):
    _, page, text = whole

    links = re.findall(r"""(?:src|srcset|href|action|data)=["']([^"']*)""", page)
    assert links and all(link.startswith("data:") for link in links)
    assert "@import" not in page and "url(" not in page
    assert all(name in text for name in NAMES) and "<script" not in page


@pytest.mark.slow
def test_a_second_report_is_the_same(whole):
    folder, page, _ = whole

    assert report(folder)[0] == page


def test_the_table_has_a_row_per_class(whole):
    _, page, _ = whole

    rows = re.findall(r"<tr><th>(.*?)</th><td>(.*?)</td>", page)
    assert [html.unescape(name) for name, _ in rows][:5] == [*NAMES, "all, one threshold"]
    counts = [int(count) for _, count in rows[:5]]
    assert sum(counts[:4]) == counts[4] and counts[3] == 0
    assert "Without ground truth, and so without AP: " + NAMES[3] in html.unescape(page)


def test_an_evaluation_alone_has_no_curves(tmp_path, quick):
    _, text = report(make_run(tmp_path, [CONTENT], [RESULTS]))

    assert "Curves of losses omitted: metrics.json has none" in text and "Training time" not in text
    assert "Errors" in text


def test_a_killed_run_has_only_curves(tmp_path, quick):
    lines = log(5)
    lines[1]["total_loss"], lines[2]["loss_cls"] = math.nan, math.inf
    metrics = [*lines, '{"iteration": 119, "total_l']
    page, text = report(make_run(tmp_path, [CONTENT], metrics=metrics))

    assert "1 line of metrics.json omitted" in text and "total_loss is NaN or infinite in 1 of 5 lines" in text
    assert "after 100 of 1,100 iterations" in text and "Curve of AP omitted" in text
    assert "No metrics" in text and "coco_instances_results.json: no evaluation has written its boxes" in text
    assert "Total loss" in headings(page) and "Errors" not in headings(page)


def test_metrics_of_a_missing_dataset_come_from_metrics_json(tmp_path, quick):
    folder = make_run(tmp_path, [CONTENT], [RESULTS], [*log(5), evaluated(99, 33.3)])
    (tmp_path / "data_0/annotations.json").unlink()

    _, text = report(folder)

    assert "AP 33.3" in text and "metrics from metrics.json, after 100 iterations" in text
    assert "Curves, confusion matrix, images and errors omitted" in text and "annotations.json" in text


def test_missing_images_are_omitted(tmp_path, quick):
    page, text = report(make_run(tmp_path, [CONTENT], [RESULTS], images=False))

    assert re.search(r"\d+ images omitted: \S+1.png: the image is missing", text)
    assert ".jpg" not in page.replace("image is", "") and "Precision and recall" in headings(page)


@pytest.mark.parametrize(
    "content, results, shown",
    [
        (content_of(2, ["a"], [annotation(1, 10, [5, 5, 50, 50])]), [], "1 object"),
        (content_of(2, ["a"], []), [result(1, 10, [5, 5, 9, 9], 0.9)], "no ground truth"),
        (content_of(2, ["a"], []), [], "no image has ground truth or detections"),
        (
            content_of(1, ["a", "b"], [annotation(1, 10, [5, 5, 0, 0]), annotation(1, 20, [-500, 5, 9999, 3], 1)]),
            [result(1, 10, [5, 5, 0, 0], 0.9), result(1, 20, [500, 500, -3, 1e-9], 1.5), result(1, 20, [1] * 4, -1)],
            "3 detections",
        ),
        (
            content_of(1, ["a"], [annotation(1, 10, [5, 5, 50, 50])]),
            json.dumps([result(1, 10, [5, 5, 50, math.nan], 0.9), result(1, 99, [5, 5, 50, 50], 0.9)]),
            "1 of 2 boxes are omitted: their numbers are not finite",
        ),
    ],
    ids=["nothing found", "no objects", "nothing at all", "odd boxes", "no numbers"],
)
def test_odd_boxes_are_reported(tmp_path, content, results, shown):
    page, text = report(make_run(tmp_path, [content], [results]))

    assert shown in text and "Errors" in headings(page)


@pytest.mark.parametrize(
    "results, why",
    [
        ("[{", "not a json file"),
        ("{}", "not in COCO's format of results"),
        ('[{"image_id": 1}]', "not in COCO's format of results"),
        ('[{"image_id": "x", "category_id": 10, "bbox": [1, 2, 3, 4], "score": 0.5}]', "not in COCO's format"),
        ('[{"image_id": 1, "category_id": 10, "bbox": [1, 2, 3], "score": 0.5}]', "not in COCO's format"),
        ("[7]", "not in COCO's format of results"),
        ('[{"image_id": 999, "category_id": 10, "bbox": [1, 2, 3, 4], "score": 0.5}]', "1 of 1 boxes are of images"),
    ],
)
def test_malformed_results_are_omitted(tmp_path, results, why):
    folder = make_run(tmp_path, [CONTENT], [results])

    _, text = report(folder)

    assert f"omitted: {folder}" in text and why in text


@pytest.mark.parametrize(
    "change, why",
    [
        (lambda content: content.pop("annotations"), "has no annotations"),
        (lambda content: content.pop("categories"), "not in COCO's format"),
        (lambda content: content["annotations"][0].update(image_id=999), "not in COCO's format"),
        (lambda content: content["annotations"][0].update(bbox=[1, 2, 3]), "not in COCO's format"),
    ],
)
def test_malformed_annotations_are_omitted(tmp_path, change, why):
    content = copy.deepcopy(CONTENT)
    folder = make_run(tmp_path, [content], [RESULTS])
    change(content)
    (tmp_path / "data_0/annotations.json").write_text(json.dumps(content))

    assert why in report(folder)[1]


@pytest.mark.slow
def test_several_datasets_have_a_section_each(tmp_path, quick):
    metrics = [*log(60), {**evaluated(1200, 20.0, "made_0/"), **evaluated(1200, 30.0, "made_1/")}]

    page, text = report(make_run(tmp_path, [CONTENT, random_boxes(1)[0]], [RESULTS], metrics))

    assert headings(page)[:2] == ["made_0", "made_1"] and {"AP on made_0", "AP on made_1"} <= set(headings(page))
    assert "metrics from metrics.json, after 1,200 iterations" in text, "the second has no boxes"
    names = {path.name for path in (tmp_path / "run/report").iterdir()}
    assert "made_0_confusion_matrix.svg" in names and "total_loss.svg" in names


def test_a_dataset_of_another_format(tmp_path, quick):
    """A YOLO folder: its ground truth is converted to COCO's format when it is read."""
    root = tmp_path / "cells"
    for part in ("train", "val"):
        (root / "images" / part).mkdir(parents=True)
        (root / "labels" / part).mkdir(parents=True)
        Image.new("RGB", (120, 90)).save(root / f"images/{part}/1.png")
        (root / f"labels/{part}/1.txt").write_text("1 0.5 0.5 0.25 0.5\n")
    (root / "data.yaml").write_text("names: [cat, dog]\ntrain: images/train\nval: images/val\n")
    cfg = load_config(DEMO_CONFIG, ["DATASETS.FOLDER", str(root)])
    (name,) = cfg.DATASETS.TEST
    (record,) = DatasetCatalog.get(name)
    category_id = list(MetadataCatalog.get(name).thing_dataset_id_to_contiguous_id)[1]
    found = [result(record["image_id"], category_id, [45, 22.5, 30, 45], 0.9)]
    (tmp_path / "inference").mkdir()
    (tmp_path / "inference/coco_instances_results.json").write_text(json.dumps(found))
    (tmp_path / "config.yaml").write_text(cfg.dump())

    _, text = report(tmp_path)

    assert "1 image · 1 object · 2 classes · 1 detection" in text and "AP 100.0" in text


def test_a_gpu_run_has_its_report_on_any_machine(tmp_path, quick, caplog):
    folder = make_run(tmp_path, [CONTENT])
    config = re.sub("DEVICE: .*", "DEVICE: cuda", (folder / "config.yaml").read_text())
    (folder / "config.yaml").write_text(config.replace("_BACKEND: auto", "_BACKEND: triton"))

    assert "DEVICE: cuda" in report(folder)[1] and not caplog.records


def test_the_config_file_is_read_from_the_log(tmp_path):
    folder = make_run(tmp_path, [CONTENT])
    line = "[01/02 03:04:05] detectron2 INFO: Contents of args.config_file={}:\n_BASE_: x\n"
    (folder / "log.txt").write_text(line.format("configs/mine.yaml") + line.format(folder / "config.yaml"))

    assert "Config configs/mine.yaml" in report(folder)[1]


@pytest.mark.parametrize("folder", ["nowhere", "empty", "file"])
def test_a_folder_without_a_run_is_refused(tmp_path, folder):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")

    with pytest.raises(InputError, match=folder):
        write_report(tmp_path / folder)


def test_a_failed_write_names_the_file(tmp_path):
    folder = make_run(tmp_path, [CONTENT])
    (folder / "report").write_text("a file in the place of the folder")

    with pytest.raises(InputError, match="run/report: cannot write the report"):
        write_report(folder)
