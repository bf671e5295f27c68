"""Hostile annotations in the three formats, through train_net.py and tools/check_dataset.py."""

import json
import os
from unittest.mock import Mock

import pytest

from atss.config import load_config
from atss.data import coco, sources
from tests.helpers import DEMO_CONFIG, TINY, pairs
from tests.own_data import write_image, write_text

pytestmark = pytest.mark.slow

HUGE = 10**400
DEEP = 100_000
NOT_REGULAR = {"folder": os.mkdir, "pipe": os.mkfifo, "device": lambda path: os.symlink("/dev/zero", path)}


def changed(list_name, key, value):
    """Change of a content: the first entry of a list has another value."""
    return lambda content: content[list_name][0].update({key: value})


def without(list_name, key):
    return lambda content: content[list_name][0].pop(key)


def replaced(key, value):
    return lambda content: content.update({key: value})


PATHS = {
    "outside: absolute": "/etc/passwd",
    "outside: above": "../secret.png",
    "outside: above in the middle": "a/../../secret.png",
    "outside: above with backslashes": "..\\secret.png",
    "outside: absolute with backslashes": "\\\\server\\secret.png",
    "outside: of another system": "C:\\secret.png",
    "nul byte": "0.png\0.txt",
    "lone surrogate": "\ud800.png",
    "two lines": "0.png\nerror: all is well",
    "empty": "",
    "folder": ".",
    "long": "a" * 5000,
    "missing": "nowhere.png",
}
NAN, INFINITE = float("nan"), float("inf")
SEGMENTATIONS = {
    "size beyond any image": {"size": [10**9, 10**9], "counts": [10**18]},
    "size that is a text": {"size": "48 64", "counts": [3072]},
    "counts that are negative": {"size": [48, 64], "counts": [4000, -928]},
    "counts that are huge": {"size": [48, 64], "counts": [HUGE]},
    "counts that are too many": {"size": [48, 64], "counts": [1] * 100_000},
    "text that does not end": {"size": [48, 64], "counts": "o" * 100_000},
    "text of no code": {"size": [48, 64], "counts": "\xff\0\u2028\ud800"},
    "deep lists": json.loads("[" * 900 + "]" * 900),
    "points that are not numbers": [[5, 5, NAN, 5, INFINITE, 5]],
}
VALUES = {
    ("images", "id"): (None, "", "1", "\n", "0.0", 1, 1.0, 2**63, HUGE, [], NAN, INFINITE),
    ("images", "file_name"): (3, None, True, ["0.png"], {"a": 1}),
    ("images", "width"): (0, -64, 1.5, "64", None, True, HUGE, NAN, INFINITE, 10**9, [64]),
    ("images", "height"): (2**31, 2**63, 1_000_001),
    ("annotations", "bbox"): ([], [1, 2, 3], [1, 2, 3, 4, 5], "1 2 3 4", None, {}, [1, 2, 3, None], [1, 2, 3, "4"],
                              [[1], 2, 3, 4], [NAN] * 4, [0, 0, INFINITE, 5], [HUGE, 0, 5, 5], [-1e300, 0, 5, 5],
                              [True, 0, 5, 5]),
    ("annotations", "image_id"): (None, "00", "x", 0.5, True, [0], {}, 99, -1, 2**63, HUGE),
    ("annotations", "category_id"): (None, "03", "cat", 3.5, [3], 99, 2**64),
    ("annotations", "area"): ("600", None, NAN, INFINITE, HUGE, []),
    ("annotations", "iscrowd"): (2, "0", None, [], HUGE),
    ("categories", "id"): (None, "cat", "7", 7, 2**63, {}),
    ("categories", "name"): (None, 3, ["a"], "\0", "\udfff", "a\nb", "\x1b[2J", "\u2028"),
}  # fmt: skip
CHANGES = {
    **{f"file_name {name}": changed("images", "file_name", value) for name, value in PATHS.items()},
    **{f"{key} of {name} is {repr(value)[:20]}": changed(name, key, value) for (name, key), values in VALUES.items()
       for value in values},
    **{f"{key} of {name} is missing": without(name, key) for name, key in VALUES
       if key not in ("height", "category_id", "area", "iscrowd")},
    **{f"{key} is {value!r}": replaced(key, value) for key in ("images", "annotations", "categories")
       for value in (None, 3, "text", {}, [None], [[]])},
    **{f"segmentation with {name}": lambda content, value=value: content["annotations"][0].update(
        bbox=None, segmentation=value) for name, value in SEGMENTATIONS.items()},
    "no images": replaced("images", []),
    "no classes": replaced("categories", []),
    "no objects": replaced("annotations", []),
    "only crowds": lambda content: [a.update(iscrowd=1) for a in content["annotations"]],
    "only boxes without area": lambda content: [a.update(bbox=[5, 5, 0, 0]) for a in content["annotations"]],
}  # fmt: skip


def registered(name, annotations, images):
    return {"DATASETS.REGISTER": [[name, annotations, images]], "DATASETS.TRAIN": (name,), "DATASETS.TEST": ()}


def refused(doors, annotations, images):
    """The error of training; tools/check_dataset.py must find an error, too."""
    settings = registered("hostile", annotations, images)
    assert "error: hostile" in doors.check("--quick", "--config-file", DEMO_CONFIG, *pairs({**TINY, **settings}))
    return doors.train(settings, data=False)


@pytest.mark.parametrize("name", CHANGES)
def test_coco_entries(doors, coco_file, name):
    line = refused(doors, *coco_file(CHANGES[name]))

    assert "hostile" in line or "annotations.json" in line
    if name.startswith("file_name outside"):
        assert "'file_name' must start from the image folder and stay in it" in line


TEXTS = {
    "empty": b"",
    "text": b"annotations",
    "xml": b"<annotation></annotation>",
    "nothing": b"null",
    "number": b"3",
    "list": b"[]",
    "list of images": b'[{"id": 1}]',
    "empty object": b"{}",
    "infinite": b"1e999",
    "not a number": b"NaN",
    "long number": b'{"images": ' + b"9" * 5000 + b"}",
    "unclosed lists": b"[" * DEEP,
    "nested lists": b"[" * DEEP + b"]" * DEEP,
    "nested objects": b'{"images":' * DEEP + b"1" + b"}" * DEEP,
    "nested less": b'{"images": [' + b"[" * 900 + b"]" * 900 + b'], "categories": []}',
    "half": b'{"images": [{"id": 1, "file_na',
    "two objects": b"{}{}",
    "nul bytes": bytes(100),
    "not utf-8": b"\xff\xfe{}",
    "string that is not utf-8": b'{"images": "\xff"}',
    "utf-16": '{"images": []}'.encode("utf-16"),
}


@pytest.mark.parametrize("data", TEXTS.values(), ids=TEXTS)
def test_coco_files(doors, coco_file, tmp_path, data):
    annotations, images = coco_file()
    (tmp_path / "annotations.json").write_bytes(data)

    assert "annotations.json" in refused(doors, annotations, images)


@pytest.mark.parametrize("make", [*NOT_REGULAR.values(), lambda path: None], ids=[*NOT_REGULAR, "missing"])
def test_coco_files_that_are_not_regular(doors, tmp_path, make):
    make(tmp_path / "a.json")

    assert "a.json" in refused(doors, str(tmp_path / "a.json"), str(tmp_path))


def test_coco_files_larger_than_the_limit_or_the_memory(doors, coco_file, monkeypatch):
    annotations, images = coco_file()
    monkeypatch.setattr(coco.json, "load", Mock(side_effect=MemoryError))
    assert "larger than this machine's memory" in refused(doors, annotations, images)

    monkeypatch.setattr(sources, "MAX_ANNOTATIONS", 100)
    assert "annotations.json: more than the 100 bytes" in refused(doors, annotations, images)


def test_the_last_of_repeated_keys_counts(coco_file, tmp_path):
    annotations, images = coco_file()
    text = (tmp_path / "annotations.json").read_text().replace('"width": 64', '"width": "wide", "width": 64')
    (tmp_path / "annotations.json").write_text(text)

    cfg = load_config(DEMO_CONFIG, pairs({**TINY, **registered("twice", annotations, images)}))

    assert cfg.MODEL.ATSS.NUM_CLASSES == 2


def folder_refused(doors, folder):
    """The error of training and the output of tools/check_dataset.py; both name the folder."""
    printed = doors.check(folder, "--config-file", DEMO_CONFIG, *pairs(TINY))
    line = doors.train({"DATASETS.FOLDER": folder, "DATASETS.TEST": ()}, data=False)
    assert "pets" in line and len(line) < 1000 and len(printed) < 20_000
    return line, printed


@pytest.fixture
def yolo(tmp_path):
    """A folder with an image and its label file."""
    write_image(tmp_path / "pets/images/a.png", (64, 48))
    write_text(tmp_path / "pets/labels/a.txt", "0 0.5 0.5 0.2 0.2")
    return tmp_path / "pets"


@pytest.fixture
def voc(tmp_path):
    """A folder with an image and its xml file."""
    write_image(tmp_path / "pets/JPEGImages/a.png", (64, 48))
    write_text(tmp_path / "pets/Annotations/a.xml", xml())
    return tmp_path / "pets"


BOX = "<bndbox><xmin>5</xmin><ymin>5</ymin><xmax>20</xmax><ymax>30</ymax></bndbox>"
SIZE = "<size><width>64</width><height>48</height></size>"


def xml(objects=f"<object><name>cat</name>{BOX}</object>", size=SIZE, name="a.png", head=""):
    return f"{head}<annotation><filename>{name}</filename>{size}{objects}</annotation>"


LAUGHS = '<!ENTITY a0 "ha">' + "".join(f'<!ENTITY a{i} "{f"&a{i - 1};" * 10}">' for i in range(1, 30))
XMLS = {
    "empty": "",
    "text": "cat 1 2 3 4",
    "json": "{}",
    "another root": "<annotations></annotations>",
    "unclosed": "<annotation>",
    "nested": "<annotation>" * DEEP,
    "nested and closed": "<annotation>" * DEEP + "</annotation>" * DEEP,
    "entities that grow": xml(head=f"<!DOCTYPE lolz [{LAUGHS}]>", name="&a29;"),
    "one entity that is long": xml(head='<!DOCTYPE a [<!ENTITY a "' + "a" * 100_000 + '">]>', name="&a;" * 10_000),
    "entity of a file": xml(head='<!DOCTYPE a [<!ENTITY a SYSTEM "file:///etc/passwd">]>', name="&a;"),
    "entity of an address": xml(head='<!DOCTYPE a SYSTEM "http://127.0.0.1:1/a.dtd">'),
    "unknown entity": xml(name="&nobody;"),
    "unknown encoding": '<?xml version="1.0" encoding="nobody"?>' + xml(),
    "encoding of many bytes": '<?xml version="1.0" encoding="utf-7"?>' + xml(),
    "nul byte": xml(name="a\0.png"),
    "no name": xml(f"<object>{BOX}</object>"),
    "no box": xml("<object><name>cat</name></object>"),
    "text as a number": xml().replace("<xmin>5<", "<xmin>left<"),
    "not a number": xml().replace("<xmin>5<", "<xmin>nan<"),
    "infinite": xml().replace("<xmax>20<", "<xmax>inf<"),
    "huge": xml().replace("<ymax>30<", "<ymax>1e300<"),
    "long number": xml().replace("<ymax>30<", f"<ymax>{'9' * 5000}<"),
    "huge size": xml(size="<size><width>1e300</width><height>48</height></size>"),
    "size beyond any image": xml(size="<size><width>999999999</width><height>48</height></size>"),
}  # fmt: skip


@pytest.mark.parametrize("text", XMLS.values(), ids=XMLS)
def test_voc_files(doors, voc, text):
    write_text(voc / "Annotations/a.xml", text)

    folder_refused(doors, voc)


@pytest.mark.parametrize("name", ["../../secret.png", "/etc/secret.png", "..\\..\\secret.png", "..", ""])
def test_voc_files_cannot_name_images_outside_of_the_folder(doors, voc, name):
    """An image with that name exists outside; the one inside is missing."""
    write_image(voc.parent / "secret.png", (64, 48))
    (voc / "JPEGImages/a.png").rename(voc / "JPEGImages/b.png")
    write_text(voc / "Annotations/a.xml", xml(name=name))

    line, _ = folder_refused(doors, voc)

    assert "missing" in line and str(voc.parent / "secret.png") not in line


def test_voc_lists_cannot_name_files_outside_of_the_folder(doors, voc):
    write_text(voc.parent / "secret.xml", "top secret")
    write_text(voc / "ImageSets/Main/train.txt", "a\n../../secret\n..\\..\\secret\n/etc/passwd\n")

    line, printed = folder_refused(doors, voc)

    assert "is missing, but ImageSets lists it" in line and "top secret" not in printed


def test_voc_files_that_are_too_large(doors, voc):
    with open(voc / "Annotations/a.xml", "wb") as file:
        file.truncate(sources.MAX_TEXT + 1)  # needs no space on the disk

    assert "more than the" in folder_refused(doors, voc)[0]


GROWING = "x0: &x0 [a]\n" + "".join(f"x{i}: &x{i} [{', '.join([f'*x{i - 1}'] * 9)}]\n" for i in range(1, 15))
YAMLS = {
    "names that are numbers of lists": "train: images\nnames: {0: [a]}",
    "names that are a text": "train: images\nnames: cat",
    "names without a number": "train: images\nnames: {a: b}",
    "names that grow": f"train: images\n{GROWING}names: *x14",
    "names of themselves": "train: images\nnames: &a [*a]",
    "split that grows": f"names: [a]\n{GROWING}train: *x14",
    "split that is a mapping": "names: [a]\ntrain: {a: b}",
    "split that is nowhere": "names: [a]\ntrain: nowhere",
    "tag that calls": "names: !!python/object/apply:os.system ['true']\ntrain: [",
    "long": "names: [a]\ntrain: images\nx: " + "x" * (1 << 20),
    "brackets": "[" * DEEP,
    "binary": "\x01\x02",
    "long number of a class": "train: images\nnames: {" + "9" * 5000 + ": a}",
    "class beyond 64 bits": "train: images\nnames: {99999999999999999999: a}",
}  # fmt: skip


@pytest.mark.parametrize("text", YAMLS.values(), ids=YAMLS)
def test_yolo_yaml_files(doors, yolo, text):
    write_text(yolo / "data.yaml", text)

    folder_refused(doors, yolo)


LABELS = {
    "text": "cat",
    "json": '{"images": []}',
    "too few": "0 0.5 0.5 0.2",
    "odd polygon": "0 0.5 0.5 0.2 0.2 0.3",
    "not a number": "0 nan 0.5 0.2 0.2",
    "infinite": "0 inf 0.5 0.2 0.2",
    "overflow": "0 1e999 0.5 0.2 0.2",
    "pixels": "0 30 20 10 10",
    "class that is a text": "cat 0.5 0.5 0.2 0.2",
    "class that is a fraction": "0.5 0.5 0.5 0.2 0.2",
    "class that is nan": "nan 0.5 0.5 0.2 0.2",
    "class that is huge": "1e300 0.5 0.5 0.2 0.2",
    "class that is negative": "-1 0.5 0.5 0.2 0.2",
    "class that nobody named": "7 0.5 0.5 0.2 0.2",
    "nul bytes": "\0" * 1000,
    "long number": "0 0." + "5" * 100_000 + " 5 5 5",
    "long line": "0 " + "5 " * 100_000,
}


@pytest.mark.parametrize("text", LABELS.values(), ids=LABELS)
def test_yolo_label_files(doors, yolo, text):
    write_text(yolo / "labels/a.txt", text)
    write_text(yolo / "data.yaml", "train: images\nnames: [cat, dog]")

    folder_refused(doors, yolo)


@pytest.mark.parametrize("listed", ["/etc/passwd", "../secret.png", "..\\secret.png", "images/../../secret.png"])
def test_yolo_lists_cannot_name_images_outside_of_the_folder(doors, yolo, listed):
    write_image(yolo.parent / "secret.png", (64, 48))
    write_text(yolo / "train.txt", f"images/a.png\n{listed}\n")
    write_text(yolo / "data.yaml", "train: train.txt\nnames: [cat]")

    assert "outside of the dataset's folder" in folder_refused(doors, yolo)[0]


@pytest.mark.parametrize("listed", ["x/../../secret.png", "{tmp_path}/secret.png", "C:\\pets\\secret.png"])
def test_yolo_lists_find_images_by_their_names_in_the_folder_alone(doors, yolo, tmp_path, listed):
    write_image(yolo.parent / "secret.png", (64, 48))
    write_text(yolo / "train.txt", f"images/a.png\n{listed.format(tmp_path=tmp_path)}\n")
    write_text(yolo / "data.yaml", "train: train.txt\nnames: [cat]")

    line = folder_refused(doors, yolo)[0]
    assert "outside of the dataset's folder" in line or "the image is missing" in line


@pytest.mark.parametrize("named", ["../pets/images", "{tmp_path}/pets/images"])
def test_a_yaml_file_may_name_folders_anywhere(yolo, tmp_path, named):
    """It is the user's own config; Roboflow writes ../train/images."""
    write_text(tmp_path / "elsewhere/data.yaml", f"train: {named.format(tmp_path=tmp_path)}\nnames: [cat]")

    cfg = load_config(DEMO_CONFIG, pairs({**TINY, "DATASETS.FOLDER": tmp_path / "elsewhere"}))

    assert cfg.MODEL.ATSS.CLASS_NAMES == ["cat"]


@pytest.mark.parametrize("make", NOT_REGULAR.values(), ids=NOT_REGULAR)
@pytest.mark.parametrize("name", ["annotations/train.json", "train.json", "data.yaml", "labels/a.txt"])
def test_folders_with_files_that_are_not_regular(doors, yolo, name, make):
    (yolo / "labels/a.txt").unlink()
    (yolo / name).parent.mkdir(exist_ok=True)
    make(yolo / name)

    folder_refused(doors, yolo)
