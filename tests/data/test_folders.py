"""`DATASETS.FOLDER`: which layouts are known, what they give, and what a config makes of them."""

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

import train_net as train_net_module
from atss.config import load_config
from atss.data import read_dataset, register_folder
from atss.data.catalog import load
from atss.data.folders import find_dataset
from atss.errors import InputError
from atss.evaluation.coco import BoxEvaluator
from tests import own_data
from tests.helpers import DEMO_CONFIG, TINY, pairs
from tests.own_data import as_records, records, write_coco, write_text, write_voc, write_yolo

YAML = "names: [cat, dog]\ntrain: {train}\nval: {val}\n"


def read(folder):
    """dict from part to what is read, see `own_data.records`."""
    return {
        part: as_records(read_dataset(name), MetadataCatalog.get(name).thing_classes)
        for part, name in register_folder(str(folder)).items()
    }


@pytest.fixture
def said(caplog):
    """Function: what the log has got so far; messages that come once a process come again."""
    detectron2_logger._LOG_COUNTER.clear()
    caplog.set_level(logging.INFO)
    return lambda: [record.getMessage() for record in caplog.records]


@pytest.mark.parametrize(
    "annotations, images",
    [
        ("annotations/{part}.json", "{part}"),
        ("annotations/instances_{part}2017.json", "{part}2017"),
        ("annotations/{part}_annotations.json", "images/{part}"),
        ("annotations/{part}.json", "images"),
        ("{part}.json", "{part}"),
        ("{part}.json", "."),
        ("{part}.json", "photos"),
        ("{part}/_annotations.coco.json", "{part}"),
        ("{part}/labels.json", "{part}/images"),
        ("annotations/{part}.json", "annotations"),
    ],
)
def test_coco_folders(tmp_path, annotations, images):
    write_coco(tmp_path, annotations, images)

    assert find_dataset(str(tmp_path)).layout == "COCO"
    assert read(tmp_path) == records()


@pytest.mark.parametrize(
    "images, labels, yaml, layout",
    [
        ("images/{part}", "labels/{part}", YAML.format(train="images/train", val="images/val"), "YOLO"),
        ("{part}/images", "{part}/labels", YAML.format(train="../train/images", val="../val/images"), "YOLO"),
        ("{part}/images", "{part}/labels", YAML.format(train="train", val="[val]"), "YOLO"),
        ("data/{part}", "data/{part}", "path: data\n" + YAML.format(train="train", val="val"), "YOLO"),
        (
            "images/{part}",
            "labels/{part}",
            "path: /gone/x\n" + YAML.format(train="images/train", val="images/val"),
            "YOLO",
        ),
        ("images/{part}", "labels/{part}", "names: {0: cat, 1: dog}\ntrain: images/train\nval: images/val\n", "YOLO"),
        ("images/{part}", "labels/{part}", "names: [cat, dog]\n", "YOLO without a yaml file"),
        ("images/{part}", "labels/{part}", None, "YOLO without a yaml file"),
        ("{part}/images", "{part}/labels", None, "YOLO without a yaml file"),
    ],
)
def test_yolo_folders(tmp_path, images, labels, yaml, layout):
    write_yolo(tmp_path, images, labels)
    write_text(*((tmp_path / "data.yaml", yaml) if yaml else (tmp_path / "classes.txt", "cat\ndog\n")))

    assert find_dataset(str(tmp_path)).layout == layout
    assert read(tmp_path) == records()


def test_yolo_parts_as_lists_of_images(tmp_path):
    write_yolo(tmp_path, "images", "labels")
    write_text(tmp_path / "train.txt", "./images/a.png\n./images/b.png\n")
    write_text(tmp_path / "val.txt", "./images/c.png\n./images/d.png\n")
    write_text(tmp_path / "my.yaml", YAML.format(train="train.txt", val="val.txt"))

    assert read(tmp_path) == records()


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"annotations": "{part}/Annotations", "images": "{part}/JPEGImages", "lists": False},
        {"annotations": "{part}/annotations", "images": "{part}/images", "lists": False},
        {"annotations": "{part}", "images": "{part}", "lists": False},
    ],
)
def test_voc_folders(tmp_path, settings):
    write_voc(tmp_path, **settings)

    assert find_dataset(str(tmp_path)).layout == "Pascal VOC"
    assert read(tmp_path) == records()


def test_without_parts_all_is_train(tmp_path):
    train = {"train": own_data.IMAGES["train"]}
    write_coco(tmp_path / "coco", "annotations/instances_default.json", "images", train)
    write_voc(tmp_path / "voc", lists=False, parts=train)
    write_voc(tmp_path / "beside", ".", ".", False, train)
    write_yolo(tmp_path / "yolo", "images", "labels", train)
    write_text(tmp_path / "yolo/labels/classes.txt", "cat\ndog\n")

    for folder in ("coco", "voc", "beside", "yolo"):
        assert read(tmp_path / folder) == {"train": records()["train"]}


@pytest.mark.parametrize("called", ["val", "valid", "validation"])
def test_names_of_the_part_to_validate_on(tmp_path, called):
    parts = {"train": own_data.IMAGES["train"], called: own_data.IMAGES["val"]}
    write_coco(tmp_path / "coco", parts=parts)
    write_yolo(tmp_path / "yolo", parts=parts)
    write_voc(tmp_path / "voc", "{part}", "{part}", False, parts=parts)

    for folder in ("coco", "yolo", "voc"):
        assert list(find_dataset(str(tmp_path / folder)).splits) == ["train", "val"]


def test_the_trainval_list_of_voc_stands_in_for_train(tmp_path):
    write_voc(tmp_path, lists=False)
    write_text(tmp_path / "ImageSets/Main/trainval.txt", "a\nb\n")
    write_text(tmp_path / "ImageSets/Main/test.txt", "c -1\nd  1\n")
    write_text(tmp_path / "ImageSets/Main/cat_trainval.txt", "a -1\n")

    assert read(tmp_path) == {"train": records()["train"], "test": records()["val"]}


def test_files_of_cocos_other_tasks_are_left_alone(tmp_path):
    write_coco(tmp_path, "annotations/instances_{part}2017.json")
    for task in ("captions", "person_keypoints", "panoptic", "stuff", "image_info"):
        write_text(tmp_path / f"annotations/{task}_train2017.json", "{}")
    write_text(tmp_path / "package.json", "{}")

    assert list(find_dataset(str(tmp_path)).splits) == ["train", "val"]


def test_of_several_layouts_cocos_is_taken_then_yolos_and_the_log_says_so(tmp_path, said):
    write_voc(tmp_path)
    write_yolo(tmp_path)
    write_text(tmp_path / "data.yaml", YAML.format(train="images/train", val="images/val"))
    assert find_dataset(str(tmp_path)).layout == "YOLO"

    write_coco(tmp_path)
    assert find_dataset(str(tmp_path)).layout == "COCO"
    assert f"{tmp_path}: taken as COCO; it could also be YOLO, Pascal VOC" in said()[-1]


def test_two_files_of_the_same_part_are_refused_with_both_names(tmp_path):
    write_coco(tmp_path)
    shutil.copy(tmp_path / "annotations/train.json", tmp_path / "annotations/train_old.json")

    with pytest.raises(InputError, match=r"train\.json and .*train_old\.json are both of the split train"):
        find_dataset(str(tmp_path))


def test_files_of_no_part_beside_others_are_parts_of_their_own(tmp_path):
    write_coco(tmp_path, "fold_{part}.json", "images", {"one": own_data.IMAGES["train"], "two": own_data.IMAGES["val"]})

    with pytest.raises(InputError, match=r"has no split train, val or test, but fold_one, fold_two; .*DATASETS\.TRAIN"):
        settled(tmp_path)
    name = f"{tmp_path.name}_fold_one"
    assert (name,) == settled(tmp_path, **{"DATASETS.TRAIN": (name,)}).DATASETS.TRAIN


def test_roboflows_parent_category_is_no_class_unless_an_object_has_it(tmp_path):
    def add_parent(content):
        content["categories"] = [
            {"id": 0, "name": "pets", "supercategory": "none"},
            *({**category, "supercategory": "pets"} for category in content["categories"]),
        ]

    def use_parent(content):
        add_parent(content)
        content["annotations"][0]["category_id"] = 0

    write_coco(tmp_path / "unused", "{part}/_annotations.coco.json", change=add_parent)
    write_coco(tmp_path / "used", "{part}/_annotations.coco.json", change=use_parent)

    assert read(tmp_path / "unused") == records()
    assert MetadataCatalog.get("unused_train").thing_classes == ["cat", "dog"]
    read(tmp_path / "used")
    assert MetadataCatalog.get("used_train").thing_classes == ["pets", "cat", "dog"]


def test_a_folder_of_no_known_layout_gets_a_line_that_says_what_was_looked_for(tmp_path):
    write_text(tmp_path / "notes.txt", "")
    with pytest.raises(
        InputError, match=r"COCO.*annotations/\*\.json.*YOLO.*Pascal VOC.*Annotations/\*\.xml"
    ) as caught:
        find_dataset(str(tmp_path))
    assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)

    write_voc(tmp_path / "VOC2012")
    with pytest.raises(InputError, match=r"VOC2012 holds one"):
        find_dataset(str(tmp_path))
    with pytest.raises(InputError, match="nowhere: no such folder"):
        find_dataset("nowhere")


@pytest.mark.parametrize("write", [write_coco, write_yolo, write_voc])
def test_evaluators_get_a_json_file_with_the_same_objects(write, tmp_path):
    write(tmp_path)
    name = register_folder(str(tmp_path))["val"]
    dicts = read_dataset(name)

    evaluator = BoxEvaluator(name, str(tmp_path / "out"))

    objects = {image_id: evaluator._coco_api.imgToAnns[image_id] for image_id in evaluator._coco_api.imgs}
    assert {d["image_id"]: [a["bbox"] for a in d["annotations"]] for d in dicts} == {
        image_id: [a["bbox"] for a in of_image] for image_id, of_image in objects.items()
    }


@pytest.mark.slow
def test_what_is_written_for_evaluators_is_gone_when_the_process_ends_and_not_when_its_workers_do(tmp_path):
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


def settled(folder, **settings):
    return load_config(DEMO_CONFIG, pairs({**TINY, "DATASETS.FOLDER": folder, **settings}))


def test_the_folder_alone_settles_datasets_and_classes(tmp_path):
    write_voc(tmp_path / "pets")

    cfg = settled(tmp_path / "pets")

    assert (cfg.DATASETS.TRAIN, cfg.DATASETS.TEST) == (("pets_train",), ("pets_val",))
    assert (cfg.MODEL.ATSS.NUM_CLASSES, cfg.MODEL.ATSS.CLASS_NAMES) == (2, ["cat", "dog"])


def test_the_test_part_is_evaluated_on_where_there_is_no_val(tmp_path):
    write_yolo(tmp_path / "pets", parts={"train": own_data.IMAGES["train"], "test": own_data.IMAGES["val"]})

    assert settled(tmp_path / "pets").DATASETS.TEST == ("pets_test",)


def test_with_neither_nothing_is_evaluated_and_a_warning_says_so(tmp_path, said):
    write_coco(tmp_path / "pets", parts={"train": own_data.IMAGES["train"]})

    assert settled(tmp_path / "pets").DATASETS.TEST == ()
    assert any("nothing will be evaluated" in line and "DATASETS.TEST" in line for line in said())


def test_datasets_named_on_the_command_line_stay(tmp_path):
    write_coco(tmp_path / "pets")

    assert settled(tmp_path / "pets", **{"DATASETS.TEST": ("pets_train",)}).DATASETS.TEST == ("pets_train",)
    assert settled(tmp_path / "pets", **{"DATASETS.TEST": ()}).DATASETS.TEST == ()


def test_a_config_that_was_written_out_is_read_again_with_or_without_the_folder(tmp_path):
    write_coco(tmp_path / "pets")
    cfg = settled(tmp_path / "pets", **{"DATASETS.TEST": ("pets_train",)})
    (tmp_path / "config.yaml").write_text(cfg.dump())

    def same(other):
        return (other.DATASETS, other.MODEL.ATSS) == (cfg.DATASETS, cfg.MODEL.ATSS)

    assert same(load_config(str(tmp_path / "config.yaml")))
    lazily = load_config(str(tmp_path / "config.yaml"), read_datasets=False)
    assert same(lazily) and len(read_dataset("pets_train")) == 2
    shutil.rmtree(tmp_path / "pets")
    assert same(load_config(str(tmp_path / "config.yaml"), read_datasets=False))
    with pytest.raises(InputError, match="pets: no such folder"):
        load_config(str(tmp_path / "config.yaml"))


def test_both_ways_to_name_data_are_refused_together(tmp_path):
    with pytest.raises(InputError, match=r"DATASETS\.FOLDER and DATASETS\.REGISTER"):
        settled(tmp_path, **{"DATASETS.REGISTER": [["pets", "pets.json", "pets"]]})


def test_what_is_wrong_in_a_folder_names_the_command_that_lists_all(tmp_path):
    write_coco(tmp_path)
    (tmp_path / "train/b.png").unlink()

    with pytest.raises(InputError, match=rf"b\.png.*1 of 2.*python tools/check_dataset\.py {tmp_path}"):
        settled(tmp_path)


def test_large_datasets_are_read_once_for_the_classes_and_for_training(tmp_path, monkeypatch):
    write_coco(tmp_path / "pets")
    reads = []
    monkeypatch.setattr("atss.data.catalog.load", lambda name, source: reads.append(name) or load(name, source))
    from atss.data import check_data, train_loader
    from atss.data import test_loader as loader_for_tests

    cfg = settled(tmp_path / "pets")
    check_data(cfg)
    train_loader(cfg), loader_for_tests(cfg, "pets_val")

    assert sorted(reads) == ["pets_train", "pets_val"]


def train_net(config_file, settings, *flags):
    """The command, in this process."""
    arguments = ["--config-file", config_file, *flags, *pairs(settings)]
    train_net_module.main(default_argument_parser().parse_args(arguments))


@pytest.mark.slow
def test_training_and_evaluation_again_from_the_runs_config(tmp_path, monkeypatch):
    monkeypatch.setattr(train_net_module, "report", lambda folder: None)
    write_voc(tmp_path / "pets")
    settings = {**TINY, "DATASETS.FOLDER": tmp_path / "pets", "OUTPUT_DIR": tmp_path / "out", "SOLVER.MAX_ITER": 2}
    settings |= {"SOLVER.IMS_PER_BATCH": 2, "DATALOADER.NUM_WORKERS": 1, "MODEL.ATSS.SCORE_THRESH_TEST": 0.001}
    train_net(DEMO_CONFIG, settings)
    boxes = "inference/coco_instances_results.json"
    found = json.loads((tmp_path / "out" / boxes).read_text())
    assert {box["image_id"] for box in found} == {0, 1}

    again = {"MODEL.WEIGHTS": tmp_path / "out/model_final.pth", "OUTPUT_DIR": tmp_path / "again"}
    train_net(str(tmp_path / "out/config.yaml"), again, "--eval-only")

    assert json.loads((tmp_path / "again" / boxes).read_text()) == found


def test_the_command_refuses_a_folder_without_a_dataset_in_one_line(tmp_path, capsys):
    with pytest.raises(SystemExit) as caught:
        train_net(DEMO_CONFIG, {"DATASETS.FOLDER": tmp_path})

    assert caught.value.code == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert "holds no dataset of a known layout" in line
