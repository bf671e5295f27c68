"""`python tools/check_dataset.py` on datasets good and bad."""

import re

import numpy as np
import pytest
from PIL import Image

import check_dataset as tool
from atss.config import parse_with_opts
from atss.data.inspection import Table
from atss.errors import InputError
from tests.helpers import DEMO_CONFIG, TINY, pairs, run
from tests.own_data import IMAGES, write_coco, write_text, write_voc, write_yolo


@pytest.fixture
def check(capsys):
    """Function: arguments -> exit status and what was printed."""

    def main(*arguments):
        arguments = ["--config-file", DEMO_CONFIG, *map(str, arguments), *pairs({**TINY, "INPUT.MIN_SIZE_TEST": 96})]
        status = tool.main(parse_with_opts(tool.get_parser(), arguments))
        return status, capsys.readouterr().out

    return main


@pytest.mark.parametrize("write, layout", [(write_coco, "COCO"), (write_voc, "Pascal VOC"), (write_yolo, "YOLO")])
def test_what_is_in_it(check, tmp_path, write, layout):
    write(tmp_path / "pets")
    if layout == "YOLO":
        write_text(tmp_path / "pets/data.yaml", "names: [cat, dog]\ntrain: images/train\nval: images/val\n")

    status, said = check(tmp_path / "pets")

    assert status == 0
    assert f"pets: {layout}, with train, val\n" in said
    rows = [line.split() for line in said.splitlines() if line]
    assert ["pets_train", "2", "0", "3", "1.5", "0"] in rows and ["pets_val", "2", "1", "1", "0.5", "0"] in rows
    assert ["cat", "2", "2", "0", "0"] in rows and ["dog", "1", "1", "1", "1"] in rows
    assert "0 errors, 1 warning" in said and "pets_val: classes without annotations, 1 of 2 classes\n    cat" in said
    assert "pets_val: images without annotations, 1 of 2 images" in said


def test_histograms_and_positives_count_every_object(check, tmp_path):
    write_coco(tmp_path / "pets")

    _, said = check(tmp_path / "pets")

    # 20 x 30, 10 x 12, 10 x 10 and 48 x 47 pixels.
    sizes = dict(re.findall(r"^ +(\d+ to \d+) +(\d+)", said.split("Object sizes: ")[1].split("Object shapes")[0], re.M))
    assert {label: int(count) for label, count in sizes.items() if count != "0"} == {
        "8 to 16": 2,
        "16 to 32": 1,
        "32 to 64": 1,
    }
    assert "ATSSAssigner assigns to 4 objects in 3 images" in said and "resized to 96 pixels" in said
    levels = [line.split() for line in said.splitlines() if re.match(r"P\d ", line)]
    assert [level[:3] for level in levels] == [[f"P{n}", f"{2**n}", f"{4 * 2**n}"] for n in range(3, 8)]
    positives = sum(int(level[3]) for level in levels)
    assert f"{positives / 4:.1f} positives per object; 0 objects have none" in said


def test_bars_are_as_long_as_their_share():
    lines = tool.bars(tool.Histogram(["a", "bb", "c", "d"], [1000, 500, 1, 0])).splitlines()

    assert [line.count("█") for line in lines] == [tool.BAR, tool.BAR // 2, 1, 0]
    assert lines[0].startswith("   a     1,000 █")


def test_images_with_their_labels_and_the_histograms_are_drawn(check, tmp_path):
    write_coco(tmp_path / "pets")

    _, said = check(tmp_path / "pets", "--output", tmp_path / "out")

    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["histograms.png", "labels.jpg"]
    assert f"Written: {tmp_path}/out/labels.jpg" in said
    with Image.open(tmp_path / "out/labels.jpg") as drawn:
        assert drawn.width > 3 * 400, "three images with objects, side by side"


def test_images_are_chosen_so_that_every_class_is_shown():
    rng = np.random.default_rng(0)
    label = np.concatenate([np.zeros(400, dtype=np.int64), np.arange(30)])
    image = np.concatenate([np.repeat(np.arange(200), 2), rng.integers(0, 200, 30)])
    classes = [f"class {k}" for k in range(30)]
    boxes, crowd = np.ones((len(label), 4)), np.zeros(len(label), dtype=bool)
    table = Table("many", classes, [f"{i}.jpg" for i in range(200)], np.full((200, 2), 9), image, label, boxes, crowd)

    chosen = [number for _, number in tool.chosen_images([table], classes)]

    needed = len(set(image[400:]))
    assert set(label[np.isin(image, chosen[:needed])]) == set(range(30)) and len(set(chosen)) == len(chosen)
    few = table._replace(label=label % 4, classes=classes[:4])
    first = [number for _, number in tool.chosen_images([few], classes[:4])][: tool.MAX_DRAWN]
    assert {k for number in first for k in few.label[image == number]} == {0, 1, 2, 3}
    assert max(first) > 150 and min(first) < 50, "the others come from everywhere"


def test_without_opening_images(check, tmp_path):
    write_coco(tmp_path / "pets")
    write_text(tmp_path / "pets/train/a.png", "no image")

    assert check(tmp_path / "pets", "--quick")[0] == 0
    status, said = check(tmp_path / "pets")
    assert status == 1 and "error: pets_train: images that cannot be read, 1 of 2 images\n" in said


def test_datasets_of_a_config_by_name(check, shapes):
    status, said = check("--quick", *pairs(shapes))

    assert status == 0 and "tiny_train" in said and "tiny_val" in said and "disc" in said


def test_a_run_that_used_the_folder_knows_it(check, tmp_path):
    write_coco(tmp_path / "pets")

    assert check(*pairs({"DATASETS.FOLDER": tmp_path / "pets"})) == check(tmp_path / "pets")


def test_parts_that_are_missing_are_a_warning(check, tmp_path):
    write_coco(tmp_path / "pets", parts={"train": IMAGES["train"]})

    status, said = check(tmp_path / "pets", "--quick")

    assert status == 0 and "pets: no split val or test, 1 of 1 datasets\n    it has train\n" in said


def remove(content, *keys):
    for key in keys:
        content.pop(key)


@pytest.mark.parametrize(
    "change",
    [
        lambda c: remove(c, "images"),
        lambda c: remove(c, "categories", "annotations"),
        lambda c: c.update(images={}, annotations="none"),
        lambda c: c.update(categories=[]),
        lambda c: c["images"].append(None),
        lambda c: c["images"][0].update(id=1),
        lambda c: c["images"][0].update(file_name="../../nowhere/a.png"),
        lambda c: c["images"][0].update(width=-1),
        lambda c: c["annotations"][0].update(bbox=[0, 0, float("inf"), 1]),
        lambda c: c["annotations"][0].update(bbox=["0", 0, 1, 1]),
        lambda c: c["annotations"][0].update(category_id=99),
        lambda c: [a.update(bbox=[900, 900, 1, 1], iscrowd="yes") for a in c["annotations"]],
    ],
)
def test_whatever_is_wrong_is_described(check, tmp_path, change):
    write_coco(tmp_path / "pets", change=lambda content: content["annotations"] and change(content))

    status, said = check(tmp_path / "pets")

    assert status == 1 and "error: pets_" in said


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100000, '{"images": [], "categories": []}'])
def test_a_file_that_is_no_dataset_is_described_beside_one_that_is(check, tmp_path, text):
    write_coco(tmp_path / "pets")
    write_text(tmp_path / "pets/annotations/val.json", text)

    status, said = check(tmp_path / "pets")

    assert status == 1 and "error: pets_val: " in said and "pets_train" in said


def test_nothing_but_problems(check, tmp_path):
    write_voc(tmp_path / "pets", parts={"train": IMAGES["val"][1:]})
    write_text(tmp_path / "pets/Annotations/d.xml", "<annotation>")

    status, said = check(tmp_path / "pets", "--output", tmp_path / "out")

    assert status == 1 and "Annotations/d.xml: no element found" in said and "'images' is empty" in said
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["histograms.png"]


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["nowhere/"], "nowhere/: no such folder"),
        (["README.md"], "no such folder"),
        (["docs"], "no dataset of a known layout"),
        (["DATASETS.TRAIN", "()", "DATASETS.TEST", "()"], "name a folder"),
        (["DATASETS.TRAIN", "('nowhere',)"], "nowhere"),
        (["MODEL.ATSS.TOPKK", "3"], "TOPKK"),
    ],
)
def test_what_cannot_be_looked_at_takes_one_line(check, arguments, said):
    with pytest.raises(InputError, match=said):
        check(*arguments)


@pytest.mark.slow
def test_from_the_command_line_with_the_papers_model(tmp_path):
    write_coco(tmp_path / "pets", change=lambda c: [a.update(bbox=[5, 5, 0, 1]) for a in c["annotations"][1:]])

    result = run("tools/check_dataset.py", tmp_path / "pets", check=False)

    assert result.returncode == 0, result.stderr
    assert "resized to 800 pixels (INPUT.MIN_SIZE_TEST), 1333 at most" in result.stdout
    assert "warning: pets_train: boxes without area, 2 of 3 annotations" in result.stdout
    assert result.stderr == ""
