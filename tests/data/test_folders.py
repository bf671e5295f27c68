"""`DATASETS.FOLDER`: the known layouts, what is read from them, and how a config is filled in from them."""

import json
import logging
import os
import shutil
import subprocess
import sys

import pytest
from detectron2.data import MetadataCatalog
from detectron2.engine import default_argument_parser
from detectron2.utils import logger as detectron2_logger

from atss.commands import train as train_command
from atss.config import load_config
from atss.data import check_data, read_dataset, register_folder, train_loader
from atss.data import test_loader as loader_for_tests
from atss.data.catalog import load
from atss.data.folders import find_dataset
from atss.errors import InputError
from atss.evaluation.coco import BoxEvaluator
from tests import own_data
from tests.helpers import DEMO_CONFIG, TINY, pairs
from tests.own_data import as_records, records, write_coco, write_text, write_voc, write_yolo

YAML = "names: [cat, dog]\ntrain: {train}\nval: {val}\n"
IN_IMAGES = YAML.format(train="images/train", val="images/val")
IN_SPLITS = ("{split}/images", "{split}/labels")
TRAIN, VAL = own_data.IMAGES["train"], own_data.IMAGES["val"]


def read(folder):
    """dict from split to what is read, see `own_data.records`."""
    return {
        split: as_records(read_dataset(name), MetadataCatalog.get(name).thing_classes)
        for split, name in register_folder(str(folder)).items()
    }


def layout_of(folder):
    return find_dataset(str(folder)).layout


def configured(folder, **settings):
    """The config of the tiny model with DATASETS.FOLDER."""
    return load_config(DEMO_CONFIG, pairs({**TINY, "DATASETS.FOLDER": folder, **settings}))


@pytest.fixture
def logged(caplog):
    """Function: messages logged so far, including those that are logged once per process."""
    detectron2_logger._LOG_COUNTER.clear()
    caplog.set_level(logging.INFO)
    return lambda: [record.getMessage() for record in caplog.records]


@pytest.mark.parametrize(
    "layout, write, arguments, yaml",
    [
        ("COCO", write_coco, ("annotations/{split}.json", "{split}"), None),
        ("COCO", write_coco, ("annotations/instances_{split}2017.json", "{split}2017"), None),
        ("COCO", write_coco, ("annotations/{split}_annotations.json", "images/{split}"), None),
        ("COCO", write_coco, ("annotations/{split}.json", "images"), None),
        ("COCO", write_coco, ("{split}.json", "{split}"), None),
        ("COCO", write_coco, ("{split}.json", "."), None),
        ("COCO", write_coco, ("{split}.json", "photos"), None),
        ("COCO", write_coco, ("{split}/_annotations.coco.json", "{split}"), None),
        ("COCO", write_coco, ("{split}/labels.json", "{split}/images"), None),
        ("COCO", write_coco, ("annotations/{split}.json", "annotations"), None),
        ("YOLO", write_yolo, (), IN_IMAGES),
        ("YOLO", write_yolo, IN_SPLITS, YAML.format(train="../train/images", val="../val/images")),
        ("YOLO", write_yolo, IN_SPLITS, YAML.format(train="train", val="[val]")),
        ("YOLO", write_yolo, ("data/{split}", "data/{split}"), "path: data\n" + YAML.format(train="train", val="val")),
        ("YOLO", write_yolo, (), "path: /gone/x\n" + IN_IMAGES),
        ("YOLO", write_yolo, (), IN_IMAGES.replace("[cat, dog]", "{0: cat, 1: dog}")),
        ("YOLO without a yaml file", write_yolo, (), "names: [cat, dog]\n"),
        ("YOLO without a yaml file", write_yolo, (), None),
        ("YOLO without a yaml file", write_yolo, IN_SPLITS, None),
        ("Pascal VOC", write_voc, (), None),
        ("Pascal VOC", write_voc, ("{split}/Annotations", "{split}/JPEGImages", False), None),
        ("Pascal VOC", write_voc, ("{split}/annotations", "{split}/images", False), None),
        ("Pascal VOC", write_voc, ("{split}", "{split}", False), None),
    ],
)
def test_layouts(tmp_path, layout, write, arguments, yaml):
    write(tmp_path, *arguments)
    if write is write_yolo:
        write_text(*((tmp_path / "data.yaml", yaml) if yaml else (tmp_path / "classes.txt", "cat\ndog\n")))

    assert layout_of(tmp_path) == layout
    assert read(tmp_path) == records()


def test_yolo_splits_as_lists_of_images(tmp_path):
    write_yolo(tmp_path, "images", "labels")
    write_text(tmp_path / "train.txt", "./images/a.png\n./images/b.png\n")
    write_text(tmp_path / "val.txt", "./images/c.png\n./images/d.png\n")
    write_text(tmp_path / "my.yaml", YAML.format(train="train.txt", val="val.txt"))

    assert read(tmp_path) == records()


@pytest.mark.parametrize(
    "write, arguments",
    [
        (write_coco, ("annotations/instances_default.json", "images")),
        (write_voc, ("Annotations", "JPEGImages", False)),
        (write_voc, (".", ".", False)),
        (write_yolo, ("images", "labels")),
    ],
)
def test_a_dataset_without_splits_is_the_split_train(tmp_path, write, arguments):
    write(tmp_path, *arguments, splits={"train": TRAIN})
    if write is write_yolo:
        write_text(tmp_path / "labels/classes.txt", "cat\ndog\n")

    assert read(tmp_path) == {"train": records()["train"]}


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_names_of_the_validation_split(tmp_path, name):
    splits = {"train": TRAIN, name: VAL}
    write_coco(tmp_path / "coco", splits=splits)
    write_yolo(tmp_path / "yolo", splits=splits)
    write_voc(tmp_path / "voc", "{split}", "{split}", False, splits=splits)

    for folder in ("coco", "yolo", "voc"):
        assert list(find_dataset(str(tmp_path / folder)).splits) == ["train", "val"]


def test_vocs_trainval_list_is_used_if_there_is_no_train_list(tmp_path):
    write_voc(tmp_path, lists=False)
    write_text(tmp_path / "ImageSets/Main/trainval.txt", "a\nb\n")
    write_text(tmp_path / "ImageSets/Main/test.txt", "c -1\nd  1\n")
    write_text(tmp_path / "ImageSets/Main/cat_trainval.txt", "a -1\n")

    assert read(tmp_path) == {"train": records()["train"], "test": records()["val"]}


def test_annotation_files_of_cocos_other_tasks_are_skipped(tmp_path):
    write_coco(tmp_path, "annotations/instances_{split}2017.json")
    for task in ("captions", "person_keypoints", "panoptic", "stuff", "image_info"):
        write_text(tmp_path / f"annotations/{task}_train2017.json", "{}")
    write_text(tmp_path / "package.json", "{}")

    assert list(find_dataset(str(tmp_path)).splits) == ["train", "val"]


def test_coco_has_precedence_then_yolo_and_the_log_names_the_others(tmp_path, logged):
    write_voc(tmp_path)
    write_yolo(tmp_path, yaml=IN_IMAGES)
    assert layout_of(tmp_path) == "YOLO"

    write_coco(tmp_path)
    assert layout_of(tmp_path) == "COCO"
    assert f"{tmp_path}: taken as COCO; it could also be YOLO, Pascal VOC" in logged()[-1]


def test_several_files_that_name_no_split_become_splits_of_their_own(tmp_path):
    write_coco(tmp_path, "fold_{split}.json", "images", {"one": TRAIN, "two": VAL})

    with pytest.raises(InputError, match=r"has no split train, val or test, but fold_one, fold_two; .*DATASETS\.TRAIN"):
        configured(tmp_path)
    name = f"{tmp_path.name}_fold_one"
    assert (name,) == configured(tmp_path, **{"DATASETS.TRAIN": (name,)}).DATASETS.TRAIN


@pytest.mark.parametrize("is_used", [False, True])
def test_roboflows_parent_category_is_a_class_only_if_an_annotation_uses_it(tmp_path, is_used):
    def add_parent(content):
        children = [{**category, "supercategory": "pets"} for category in content["categories"]]
        content["categories"] = [{"id": 0, "name": "pets", "supercategory": "none"}, *children]
        if is_used:
            content["annotations"][0]["category_id"] = 0

    write_coco(tmp_path / "pets", "{split}/_annotations.coco.json", change=add_parent)

    found = read(tmp_path / "pets")

    assert is_used or found == records()
    assert MetadataCatalog.get("pets_train").thing_classes == ["pets"] * is_used + ["cat", "dog"]


def test_folders_of_no_known_layout_are_refused_with_the_known_ones_and_two_files_of_the_same_split(tmp_path):
    write_text(tmp_path / "notes.txt", "")
    known = r"COCO.*annotations/\*\.json.*YOLO.*Pascal VOC.*Annotations/\*\.xml"
    with pytest.raises(InputError, match=known) as caught:
        find_dataset(str(tmp_path))
    assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)

    write_voc(tmp_path / "VOC2012")
    with pytest.raises(InputError, match=r"VOC2012 holds one"):
        find_dataset(str(tmp_path))
    with pytest.raises(InputError, match="nowhere: no such folder"):
        find_dataset("nowhere")

    write_coco(tmp_path)
    shutil.copy(tmp_path / "annotations/train.json", tmp_path / "annotations/train_old.json")
    with pytest.raises(InputError, match=r"train\.json and .*train_old\.json are both of the split train"):
        find_dataset(str(tmp_path))


@pytest.mark.parametrize("write", [write_coco, write_yolo, write_voc])
def test_evaluators_get_a_json_file_with_the_same_objects(write, tmp_path):
    write(tmp_path)
    name = register_folder(str(tmp_path))["val"]
    dicts = read_dataset(name)

    coco = BoxEvaluator(name, str(tmp_path / "out"))._coco_api

    expected = {d["image_id"]: [a["bbox"] for a in d["annotations"]] for d in dicts}
    assert {image_id: [a["bbox"] for a in coco.imgToAnns[image_id]] for image_id in coco.imgs} == expected


@pytest.mark.slow
def test_the_json_file_for_evaluators_is_removed_when_the_process_ends_and_not_when_its_workers_do(tmp_path):
    write_voc(tmp_path / "pets")
    program = (
        "import os, torch\n"
        "from atss.data import register_folder, read_dataset\n"
        "from detectron2.data import MetadataCatalog\n"
        f"name = register_folder({str(tmp_path / 'pets')!r})['train']\n"
        "dicts = read_dataset(name)\n"
        "list(torch.utils.data.DataLoader(range(2), num_workers=1))\n"
        "print(MetadataCatalog.get(name).json_file, os.path.isfile(MetadataCatalog.get(name).json_file))\n"
    )

    result = subprocess.run([sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True)
    path, was_there = result.stdout.split()

    assert was_there == "True" and not os.path.exists(os.path.dirname(path))


@pytest.mark.parametrize(
    "splits, evaluated",
    [
        ({"train": TRAIN, "val": VAL}, ("pets_val",)),
        ({"train": TRAIN, "test": VAL}, ("pets_test",)),
        ({"train": TRAIN}, ()),
    ],
)
def test_datasets_and_classes_follow_from_the_folder_with_a_warning_without_val(tmp_path, logged, splits, evaluated):
    write_voc(tmp_path / "pets", splits=splits)

    cfg = configured(tmp_path / "pets")

    assert cfg.DATASETS.TRAIN == ("pets_train",) and evaluated == cfg.DATASETS.TEST
    assert (cfg.MODEL.ATSS.NUM_CLASSES, cfg.MODEL.ATSS.CLASS_NAMES) == (2, ["cat", "dog"])
    warned = any("nothing will be evaluated" in line and "DATASETS.TEST" in line for line in logged())
    assert warned == (not evaluated)


@pytest.mark.parametrize("names", [("pets_train",), ()])
def test_datasets_named_on_the_command_line_have_precedence(tmp_path, names):
    write_coco(tmp_path / "pets")

    assert names == configured(tmp_path / "pets", **{"DATASETS.TEST": names}).DATASETS.TEST


@pytest.mark.parametrize("names", [("pets_train",), ()])
def test_a_runs_config_is_read_again_with_or_without_the_folder(tmp_path, names):
    write_coco(tmp_path / "pets")
    cfg = configured(tmp_path / "pets", **{"DATASETS.TEST": names})
    path = tmp_path / "config.yaml"
    path.write_text(cfg.dump())

    def is_same(other):
        return (other.DATASETS, other.MODEL.ATSS) == (cfg.DATASETS, cfg.MODEL.ATSS)

    assert is_same(load_config(str(path)))
    assert is_same(load_config(str(path), read_datasets=False)) and len(read_dataset("pets_train")) == 2
    shutil.rmtree(tmp_path / "pets")
    assert is_same(load_config(str(path), read_datasets=False))
    with pytest.raises(InputError, match="pets: no such folder"):
        load_config(str(path))


def test_registered_datasets_beside_a_folder_are_refused_and_errors_in_it_with_the_command_that_lists_them(tmp_path):
    with pytest.raises(InputError, match=r"DATASETS\.FOLDER and DATASETS\.REGISTER"):
        configured(tmp_path, **{"DATASETS.REGISTER": [["pets", "pets.json", "pets"]]})

    write_coco(tmp_path)
    (tmp_path / "train/b.png").unlink()
    with pytest.raises(InputError, match=rf"b\.png.*1 of 2.*atss check {tmp_path}"):
        configured(tmp_path)


def test_datasets_are_read_once_for_the_classes_and_for_training(tmp_path, monkeypatch):
    write_coco(tmp_path / "pets")
    reads = []
    monkeypatch.setattr("atss.data.catalog.load", lambda name, source: reads.append(name) or load(name, source))

    cfg = configured(tmp_path / "pets")
    check_data(cfg)
    next(iter(train_loader(cfg))), loader_for_tests(cfg, "pets_val")

    assert sorted(reads) == ["pets_train", "pets_val"]


def run_train(config_file, settings, *flags):
    """Run `atss train` in this process."""
    arguments = ["--config-file", config_file, *flags, *pairs(settings)]
    train_command.main(default_argument_parser().parse_args(arguments))


@pytest.mark.slow
def test_training_and_evaluation_from_the_runs_config(tmp_path, monkeypatch):
    monkeypatch.setattr(train_command, "report", lambda folder: None)
    write_voc(tmp_path / "pets")
    settings = {**TINY, "DATASETS.FOLDER": tmp_path / "pets", "OUTPUT_DIR": tmp_path / "out", "SOLVER.MAX_ITER": 2}
    settings |= {"SOLVER.IMS_PER_BATCH": 2, "DATALOADER.NUM_WORKERS": 1, "MODEL.ATSS.SCORE_THRESH_TEST": 0.001}
    run_train(DEMO_CONFIG, settings)
    results = "inference/coco_instances_results.json"
    found = json.loads((tmp_path / "out" / results).read_text())
    assert {box["image_id"] for box in found} == {0, 1}

    again = {"MODEL.WEIGHTS": tmp_path / "out/model_final.pth", "OUTPUT_DIR": tmp_path / "again"}
    run_train(str(tmp_path / "out/config.yaml"), again, "--eval-only")

    assert json.loads((tmp_path / "again" / results).read_text()) == found


def test_train_net_refuses_a_folder_without_a_dataset_in_one_line(tmp_path, capsys):
    with pytest.raises(SystemExit) as caught:
        run_train(DEMO_CONFIG, {"DATASETS.FOLDER": tmp_path})

    assert caught.value.code == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert "holds no dataset of a known layout" in line
