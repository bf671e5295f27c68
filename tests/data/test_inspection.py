"""Problems found without opening images, and by opening all of them."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from detectron2.structures import BoxMode
from PIL import Image

from atss.data.coco import classes_of, dicts_of
from atss.data.entries import sound_content
from atss.data.image_inspection import inspect_images
from atss.data.inspection import Table, inspect, rare_classes, unnamed_images

W, OF_3, OF_4 = "warning", "1 of 3 annotations", "1 of 4 annotations"


@pytest.fixture
def table_of(coco_file):
    """Function: change of the small dataset, name -> its `Table`."""

    def make(change=lambda content: None, name="animals"):
        path, images = coco_file(change)
        with open(path, encoding="utf-8") as file:
            content, problems = sound_content(json.load(file))
        assert problems == []
        return Table.of(name, dicts_of(content, images), classes_of(content).values())

    return make


def found(problems):
    """{kind: problem}"""
    assert len({problem.kind for problem in problems}) == len(problems)
    return {problem.kind: problem for problem in problems}


def change_box(box):
    return lambda content: content["annotations"][1].update(bbox=box)


def test_a_good_dataset_has_no_problems(table_of):
    tables = [table_of()]

    assert inspect(tables, ["animals"]) + unnamed_images(tables) + inspect_images(tables) == []


def copy_object(**changes):
    def change(content):
        content["annotations"].append({**content["annotations"][0], "id": 3, **changes})

    return change


def copy_twice(content):
    for copy_id, height in ((3, 30), (4, 31), (5, 30)):
        copy_object(id=copy_id, bbox=[5, 5, 20, height])(content)


def add_class(content):
    content["categories"].append({"id": 9, "name": "owl"})


def list_again(content):
    content["images"].append({**content["images"][1], "id": 3})
    content["annotations"].append({**content["annotations"][1], "id": 3, "image_id": 3})


@pytest.mark.parametrize(
    "change, severity, kind, extent, example",
    [
        (change_box([5, 5, 0, 30]), W, "boxes without area", OF_3, "1.png (64 x 48): dog [5.0, 5.0, 0.0"),
        (change_box([5, 5, 20, -3]), W, "boxes without area", OF_3, "1.png"),
        (change_box([64, 5, 20, 3]), W, "boxes outside of their image", OF_3, "1.png"),
        (change_box([5, -30, 20, 30]), W, "boxes outside of their image", OF_3, "1.png"),
        (change_box([5, 5, 20, 44]), W, "boxes that extend beyond their image", OF_3, "1.png"),
        (change_box([-1, 5, 20, 20]), W, "boxes that extend beyond their image", OF_3, "1.png"),
        (change_box([5, 5, 0.5, 20]), W, "boxes less than a pixel wide or high", OF_3, "1.png"),
        (copy_object(), W, "duplicate annotations", OF_4, "0.png (64 x 48): cat [5.0, 5.0, 20.0, 30.0]"),
        (copy_twice, W, "duplicate annotations", "2 of 6 annotations", "0.png"),
        (list_again, W, "images listed twice", "1 of 4 images", "1.png"),
        (add_class, W, "classes without annotations", "1 of 3 classes", "owl"),
        (lambda c: c["categories"][1].update(name="cat"), W, "classes of the same name", "1 of 2 classes", "cat"),
        (lambda c: c["annotations"].pop(2), "note", "images without annotations", "1 of 3 images", "2.png"),
        (lambda c: c["annotations"].clear(), "error", "nothing to learn from", "1 of 1 datasets", "animals has no box"),
        (lambda c: c["images"][0].update(file_name="x.png"), "error", "missing images", "1 of 3 images", "x.png"),
    ],
)
def test_each_problem_is_counted_and_shown_by_an_example(table_of, change, severity, kind, extent, example):
    problem = found(inspect([table_of(change)], ["animals"]))[kind]

    assert (problem.severity, problem.extent(), problem.where) == (severity, extent, "animals")
    assert example in problem.examples[0] and problem.remedy
    assert "\n" not in problem.line()


@pytest.mark.parametrize(
    "change",
    [
        change_box([-0.4, 5, 20, 43.4]),
        copy_object(bbox=[5, 5, 20, 31]),
        copy_object(category_id=7),
        copy_object(iscrowd=1),
        copy_object(image_id=1),
    ],
)
def test_boxes_beyond_by_rounding_and_similar_objects_are_no_problems(table_of, change):
    assert inspect([table_of(change)], ["animals"]) == []


def classes_in(*numbers):
    """A `Table` of 100 images, and of a class for each pair: its number of objects, in that many images."""
    image = np.concatenate([np.arange(objects) % images for objects, images in numbers])
    label = np.repeat(np.arange(len(numbers)), [objects for objects, _ in numbers])
    names, files = [f"class {k}" for k in range(len(numbers))], [f"{i}.png" for i in range(100)]
    sizes, boxes = np.full((100, 2), 64), np.ones((len(label), 4))
    return Table("cells", names, files, sizes, image, label, boxes, np.zeros(len(label), dtype=bool))


def test_rare_classes_are_named_with_the_key_and_the_ratio():
    (problem,) = rare_classes([classes_in((400, 80), (90, 60), (8, 4))])

    assert (problem.severity, problem.extent(), problem.where) == ("warning", "1 of 3 classes", "cells")
    few = "class 2: 8 objects in 4 of 100 images, and class 0 has 50 times as many objects"
    assert problem.examples == [f"{few}; DATALOADER.REPEAT_THRESHOLD 0.6"]
    assert "DATALOADER.SAMPLER_TRAIN RepeatFactorTrainingSampler" in problem.remedy


@pytest.mark.parametrize(
    "numbers",
    [
        pytest.param([(400, 80), (90, 60), (50, 4)], id="a tenth of the objects is enough"),
        pytest.param([(2400, 96), (210, 57), (210, 100)], id="repeating images of most kinds would change little"),
        pytest.param([(400, 80), (90, 60), (0, 0)], id="nothing to repeat"),
        pytest.param([(3, 2)], id="one class"),
        pytest.param([(0, 0)], id="no objects"),
    ],
)
def test_no_class_is_rare(numbers):
    assert rare_classes([classes_in(*[(objects, max(images, 1)) for objects, images in numbers])]) == []
    assert rare_classes([]) == []


def test_classes_that_are_rare_in_one_of_the_datasets_to_train_on_are_not_rare():
    assert rare_classes([classes_in((400, 80), (8, 4)), classes_in((40, 80), (80, 60))]) == []


def test_images_that_no_entry_names(table_of, tmp_path):
    tables = [table_of(lambda c: (c["images"].pop(), c["annotations"].pop()))]

    (problem,) = unnamed_images(tables)

    assert (problem.severity, problem.count) == ("note", 1) and problem.examples[0].endswith("2.png")
    others = [table_of(name="others")]
    assert unnamed_images(tables + others) == [], "another split names it"


def test_problems_of_several_datasets(table_of, tmp_path):
    first = table_of()
    second = table_of(lambda c: c["categories"][1].update(name="owl"), "others")

    problems = found(inspect([first, second]))

    assert problems["different classes"].severity == "error"
    assert problems["different classes"].examples == ["animals has cat, dog, but others has cat, owl"]
    both = problems["images in both"]
    assert (both.severity, both.extent(), both.where) == ("warning", "3 of 3 images", "animals, others")


def test_copies_in_another_folder_are_found_by_name_and_size_or_by_their_bytes(table_of, tmp_path):
    table, folder = table_of(), tmp_path / "others"
    shutil.copytree(tmp_path / "images", folder)
    Image.new("RGB", (64, 48), "red").save(folder / "1.png", compress_level=0)

    other = table._replace(name="others", file_names=[str(folder / Path(path).name) for path in table.file_names])

    assert found(inspect([table, other]))["images in both"].extent() == "2 of 3 images"
    both = found(inspect_images([table, other]))["images in both"]
    assert both.count == 2 and both.examples[0] == f"{table.file_names[0]} = {other.file_names[0]}"


def test_boxes_of_both_modes_are_the_same(table_of):
    modes = BoxMode.XYXY_ABS, BoxMode.XYWH_ABS
    objects = [{"bbox": [5, 6, 12, 14], "bbox_mode": mode, "category_id": 0} for mode in modes]
    records = [{"file_name": "x.png", "annotations": objects}]

    table = Table.of("mixed", records, ["cat"])

    assert table.boxes.tolist() == [[5, 6, 7, 8], [5, 6, 12, 14]]
    assert [problem.kind for problem in inspect([table])] == ["missing images"], "a size that is not given is no limit"


@pytest.mark.parametrize(
    "change, kinds",
    [
        (lambda c: c["images"][0].update(width=0), {"malformed images": 1}),
        (lambda c: c["images"].append(c["images"][0]), {"images with an id that another has": 1}),
        (lambda c: c["annotations"].extend([None, {}, []]), {"malformed annotations": 2, "annotations of no image": 1}),
        (lambda c: c["annotations"][0].update(bbox=[0, 0, math.inf, 1]), {"malformed annotations": 1}),
        (lambda c: c["annotations"][0].update(area=None), {"malformed annotations": 1}),
        (lambda c: c["annotations"][0].update(iscrowd=2), {"malformed annotations": 1}),
        (lambda c: c["annotations"][0].update(image_id=[]), {"annotations of no image": 1}),
        (lambda c: c["annotations"][0].update(category_id=5), {"annotations of unknown classes": 1}),
        (lambda c: c.update(images=None, categories=[]), {"no dataset": 1, "annotations of no image": 3}),
    ],
)
def test_malformed_entries_are_skipped_and_the_rest_is_valid(coco_file, change, kinds):
    path, images = coco_file()
    content = json.loads(Path(path).read_text())
    change(content)

    sound, problems = sound_content(content)

    assert {problem.kind: problem.count for problem in problems} == kinds
    assert all(problem.severity == "error" for problem in problems)
    assert sound_content(sound)[1] == [] or not sound["images"] or not sound["categories"]
    dicts_of(sound, images)


def test_unreadable_images_and_wrong_sizes_are_found(table_of, tmp_path):
    table = table_of()
    images = table.file_names
    Path(images[0]).write_bytes(Path(images[0]).read_bytes()[:60])
    turned = Image.Exif()
    turned[274] = 6
    Image.new("RGB", (64, 48)).save(images[1], exif=turned)
    Image.new("RGB", (64, 49)).save(images[2])

    problems = found(inspect_images([table]))

    assert problems["images that cannot be read"].severity == "error"
    assert "0.png" in problems["images that cannot be read"].examples[0]
    sizes = problems["images of another size than their entry says"]
    assert (sizes.severity, sizes.count) == ("error", 2)
    assert "1.png: is 48 x 64, not 64 x 48, which it is before its EXIF orientation rotates it" in sizes.examples[0]
    assert sizes.examples[1].endswith("2.png: is 64 x 49, not 64 x 48")


def test_image_modes_are_notes(table_of):
    table = table_of()
    for mode, path in zip(("RGBA", "L", "I;16"), table.file_names, strict=True):
        Image.new(mode, (64, 48)).save(path)

    problems = inspect_images([table])

    assert {problem.kind for problem in problems} == {"transparent images", "grey images", "images of 16 bits"}
    assert {problem.severity for problem in problems} == {"note"}


def test_copies_in_one_dataset_are_found_by_their_bytes(table_of):
    table = table_of()
    shutil.copy(table.file_names[0], table.file_names[2])

    problem = found(inspect_images([table]))["duplicate images"]

    assert problem.severity == "warning" and problem.examples == [f"{table.file_names[0]} = {table.file_names[2]}"]
