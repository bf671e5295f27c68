"""`python tools/check_dataset.py` on valid and invalid datasets."""

import re

import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances
from PIL import Image

from atss.commands import augmented
from atss.commands import check as tool
from atss.config import load_config, parse_with_opts
from atss.data.inspection import Table
from atss.data.train_loader import TrainLoader
from atss.errors import InputError
from tests.helpers import DEMO_CONFIG, TINY, pairs, run_forked
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
def test_layout_and_numbers_of_images_and_objects(check, tmp_path, write, layout):
    yaml = {"yaml": "names: [cat, dog]\ntrain: images/train\nval: images/val\n"} if layout == "YOLO" else {}
    write(tmp_path / "pets", **yaml)

    status, printed = check(tmp_path / "pets")

    assert status == 0
    assert f"pets: {layout}, with train, val\n" in printed
    rows = [line.split() for line in printed.splitlines() if line]
    assert ["pets_train", "2", "0", "3", "1.5", "0"] in rows and ["pets_val", "2", "1", "1", "0.5", "0"] in rows
    assert ["cat", "2", "2", "0", "0"] in rows and ["dog", "1", "1", "1", "1"] in rows
    assert "0 errors, 1 warning" in printed
    assert "pets_val: classes without annotations, 1 of 2 classes\n    cat" in printed
    assert "pets_val: images without annotations, 1 of 2 images" in printed


def test_histograms_and_positives_count_all_objects(check, tmp_path):
    write_coco(tmp_path / "pets")

    _, printed = check(tmp_path / "pets")

    # 20 x 30, 10 x 12, 10 x 10 and 48 x 47 pixels.
    sizes = printed.split("Object sizes: ")[1].split("Object shapes")[0]
    counts = dict(re.findall(r"^ +(\d+ to \d+) +([1-9]\d*)", sizes, re.M))
    assert counts == {"8 to 16": "2", "16 to 32": "1", "32 to 64": "1"}
    assert "ATSSAssigner assigns to 4 objects in 3 images" in printed and "resized to 96 pixels" in printed
    levels = [line.split() for line in printed.splitlines() if re.match(r"P\d ", line)]
    assert [level[:3] for level in levels] == [[f"P{n}", f"{2**n}", f"{4 * 2**n}"] for n in range(3, 8)]
    positives = sum(int(level[3]) for level in levels)
    assert f"{positives / 4:.1f} positives per object; 0 objects have none" in printed


def test_bars_are_proportional_to_the_counts():
    lines = tool.bars({"a": 1000, "bb": 500, "c": 1, "d": 0}).splitlines()

    assert [line.count("█") for line in lines] == [tool.BAR, tool.BAR // 2, 1, 0]
    assert lines[0].startswith("   a     1,000 █")


def test_labelled_images_and_histograms_are_written(check, tmp_path):
    write_coco(tmp_path / "pets")

    _, printed = check(tmp_path / "pets", "--output", tmp_path / "out")

    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["histograms.png", "labels.jpg"]
    assert f"Written: {tmp_path}/out/labels.jpg" in printed
    with Image.open(tmp_path / "out/labels.jpg") as drawn:
        assert drawn.width > 3 * 400, "three images with objects, side by side"


def test_the_drawn_images_show_every_class():
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


def test_quick_does_not_open_images(check, tmp_path):
    write_coco(tmp_path / "pets")
    write_text(tmp_path / "pets/train/a.png", "no image")

    assert check(tmp_path / "pets", "--quick")[0] == 0
    status, printed = check(tmp_path / "pets")
    assert status == 1 and "error: pets_train: images that cannot be read, 1 of 2 images\n" in printed


def test_the_datasets_and_the_folder_of_a_config(check, shapes, tmp_path):
    status, printed = check("--quick", *pairs(shapes))
    assert status == 0 and "tiny_train" in printed and "tiny_val" in printed and "disc" in printed

    write_coco(tmp_path / "pets")
    assert check(*pairs({"DATASETS.FOLDER": tmp_path / "pets"})) == check(tmp_path / "pets")


def test_missing_splits_are_a_warning(check, tmp_path):
    write_coco(tmp_path / "pets", splits={"train": IMAGES["train"]})

    status, printed = check(tmp_path / "pets", "--quick")

    assert status == 0 and "pets: no split val or test, 1 of 1 datasets\n    it has train\n" in printed


def test_rare_classes_are_a_warning_unless_their_images_are_repeated(check, tmp_path):
    objects = [("cat", [x, 1, 5, 5]) for x in range(5)]
    images = [(f"{i}.png", (64, 48), objects + [("dog", [30, 20, 9, 9])] * (i == 0)) for i in range(12)]
    write_coco(tmp_path / "pets", splits={"train": images, "val": IMAGES["val"]})
    repeating = {"DATALOADER.SAMPLER_TRAIN": "RepeatFactorTrainingSampler", "DATALOADER.REPEAT_THRESHOLD": 0.5}

    _, printed = check(tmp_path / "pets", "--quick")
    _, repeated = check(tmp_path / "pets", "--quick", *pairs(repeating))

    assert "warning: pets_train: rare classes, 1 of 2 classes\n    dog: 1 object in 1 of 12 images" in printed
    assert "DATALOADER.REPEAT_THRESHOLD 0.54" in printed and "rare classes" not in repeated


def test_what_is_read_although_it_is_not_quite_coco_is_counted_and_no_error(check, tmp_path):
    def change(content):
        for image in content["images"]:
            image |= {"id": str(image["id"]), "file_name": f"D:\\cells\\{image['file_name']}"}
        for annotation in content["annotations"]:
            annotation["id"] = 1

    write_coco(tmp_path / "pets", change=change)

    status, printed = check(tmp_path / "pets")

    assert (
        status == 0
        and f"pets_train: {tmp_path}/pets/annotations/train.json, images in {tmp_path}/pets/train" in printed
    )
    assert "note: pets_train: ids of images that are no integers, 2 of 5 ids" in printed
    assert "warning: pets_train: annotations without an id of their own, 2 of 3 annotations" in printed
    assert "warning: pets_train: images found by their names, 2 of 2 images" in printed


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c.pop("images"),
        lambda c: c.update(images={}, annotations="none", categories=[]),
        lambda c: c["images"].append(None),
        lambda c: c["images"][0].update(file_name="../../nowhere/a.png"),
        lambda c: c["annotations"][0].update(bbox=[0, 0, float("inf"), 1]),
        lambda c: [a.update(bbox=[900, 900, 1, 1], iscrowd="yes") for a in c["annotations"]],
    ],
)
def test_malformed_entries_are_errors(check, tmp_path, change):
    write_coco(tmp_path / "pets", change=lambda content: content["annotations"] and change(content))

    status, printed = check(tmp_path / "pets")

    assert status == 1 and "error: pets_" in printed


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100000, '{"images": [], "categories": []}'])
def test_one_invalid_file_leaves_the_other_splits_readable(check, tmp_path, text):
    write_coco(tmp_path / "pets")
    write_text(tmp_path / "pets/annotations/val.json", text)

    status, printed = check(tmp_path / "pets")

    assert status == 1 and "error: pets_val: " in printed and "pets_train" in printed


def test_a_dataset_without_any_valid_entry(check, tmp_path):
    write_voc(tmp_path / "pets", splits={"train": IMAGES["val"][1:]})
    write_text(tmp_path / "pets/Annotations/d.xml", "<annotation>")

    status, printed = check(tmp_path / "pets", "--output", tmp_path / "out")

    assert status == 1 and "Annotations/d.xml: no element found" in printed and "'images' is empty" in printed
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["histograms.png"]


@pytest.mark.parametrize(
    "arguments, printed",
    [
        (["nowhere/"], "nowhere/: no such folder"),
        (["README.md"], "no such folder"),
        (["docs"], "no dataset of a known layout"),
        (["DATASETS.TRAIN", "()", "DATASETS.TEST", "()"], "name a folder"),
        (["DATASETS.TRAIN", "('nowhere',)"], "nowhere"),
        (["MODEL.ATSS.TOPKK", "3"], "TOPKK"),
    ],
)
def test_wrong_arguments_are_refused_in_one_line(check, arguments, printed):
    with pytest.raises(InputError, match=printed):
        check(*arguments)


@pytest.mark.slow
def test_the_command_with_the_papers_model(tmp_path):
    write_coco(tmp_path / "pets", change=lambda c: [a.update(bbox=[5, 5, 0, 1]) for a in c["annotations"][1:]])

    result = run_forked("tools/check_dataset.py", tmp_path / "pets", check=False)

    assert result.returncode == 0, result.stderr
    assert "resized to 800 pixels (INPUT.MIN_SIZE_TEST), 1333 at most" in result.stdout
    assert "warning: pets_train: boxes without area, 2 of 3 annotations" in result.stdout
    assert result.stderr == ""


@pytest.mark.slow
def test_augmented_images_are_those_of_training(check, tmp_path):
    write_coco(tmp_path / "pets")
    arguments = (tmp_path / "pets", "--quick", "--augmented", "--output", tmp_path / "out")

    assert check(*arguments, "INPUT.AUGMENTATIONS", "['mosaic', 'rotate']")[0] == 0

    with Image.open(tmp_path / "out/augmented.jpg") as drawn:
        assert drawn.width > 4 * 400, "four beside each other"
    write_text(tmp_path / "pets/annotations/val.json", "{")
    (tmp_path / "out/augmented.jpg").unlink()
    assert check(*arguments)[0] == 1 and not (tmp_path / "out/augmented.jpg").exists()
    with pytest.raises(InputError, match="--augmented: name the folder"):
        check(*arguments[:3])


def test_no_more_batches_are_made_than_are_drawn(tmp_path, monkeypatch):
    write_coco(tmp_path / "pets")
    made, batch = [], TrainLoader.batch
    monkeypatch.setattr(TrainLoader, "batch", lambda loader, number: made.append(number) or batch(loader, number))
    keys = {**TINY, "DATASETS.FOLDER": tmp_path / "pets", "SOLVER.IMS_PER_BATCH": 10}

    augmented.augmented_sheet(DEMO_CONFIG, pairs(keys))

    assert made == [0, 1], "16 images"


def test_the_sheet_shows_objects_and_regions_without_loss(tmp_path):
    """In the colors of the image, whatever the order of its channels."""
    record = {"image": torch.zeros(3, 30, 40, dtype=torch.uint8), "ignore_boxes": torch.tensor([[4.0, 4, 9, 9]])}
    record["image"][0] = 200
    record["instances"] = Instances((30, 40), gt_boxes=Boxes([[10.0, 10, 30, 20]]), gt_classes=torch.tensor([1]))
    cfg = load_config(DEMO_CONFIG, ["MODEL.ATSS.CLASS_NAMES", "['cat','dog']"], read_datasets=False)

    image = augmented.drawn(record, cfg)

    colors = {tuple(color) for color in image.reshape(-1, 3).tolist()}
    assert {(0, 0, 200), augmented.IGNORED, augmented.class_colors(2)[1]} <= colors
