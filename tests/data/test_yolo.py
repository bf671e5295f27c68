"""YOLO's text files: lines, classes, and what is refused."""

import pytest
from PIL import Image

from atss.data.entries import sound_content
from atss.data.yolo import find_yolo_folders, find_yolo_yaml, read_line
from atss.errors import InputError
from tests.own_data import IMAGES, write_image, write_text, write_yolo

PARTS = {"train": IMAGES["train"]}
YAML = "names: [cat, dog]\ntrain: images/train\n"


def read(folder, part="train"):
    return {**find_yolo_folders(str(folder)), **find_yolo_yaml(str(folder))}[part].read()


def problems(content, severity):
    return [problem for problem in content.problems if problem.severity == severity]


@pytest.mark.parametrize(
    "line, keypoints, box",
    [
        ("1 0.5 0.25 0.2 0.1", False, [0.5, 0.25, 0.2, 0.1]),
        ("1.0\t0.5 0.25  0.2 1e-1\n", False, [0.5, 0.25, 0.2, 0.1]),
        ("1 0.25 0.5 0.75 0.25 0.5 0.75", False, [0.5, 0.5, 0.5, 0.5]),
        ("1 0.25 0.25 0.75 0.25 0.75 0.5 0.25 0.5", False, [0.5, 0.375, 0.5, 0.25]),
        ("1 0.5 0.25 0.2 0.1 0.3 0.3 2 0.4 0.4 2", True, [0.5, 0.25, 0.2, 0.1]),
    ],
)
def test_boxes_polygons_and_boxes_with_points(line, keypoints, box):
    label, read = read_line(line, keypoints)

    assert label == 1 and read == pytest.approx(box)


@pytest.mark.parametrize(
    "line, said",
    [
        ("cat 0.5 0.5 0.1 0.1", "expected numbers, got 'cat 0.5"),
        ("1", "expected class, x, y, width and height, or a polygon"),
        ("1 0.5 0.5 0.1", "expected class, x, y, width and height"),
        ("1 0.5 0.5 0.1 0.1 0.9", "expected class, x, y, width and height"),
        ("1.5 0.5 0.5 0.1 0.1", "whole class number"),
        ("1 0.5 0.5 nan 0.1", "finite numbers"),
        ("1 320 240 64 48", "fractions of the image's width and height, 0 to 1"),
    ],
)
def test_lines_that_are_malformed_are_named_with_file_and_number_and_the_others_read(tmp_path, line, said):
    write_yolo(tmp_path, parts=PARTS)
    write_text(tmp_path / "data.yaml", YAML)
    write_text(tmp_path / "labels/train/a.txt", f"0 0.5 0.5 0.1 0.1\n\n{line}\n")

    content = read(tmp_path)

    (error,) = problems(content, "error")
    assert error.examples[0].startswith("labels/train/a.txt, line 3: ") and said in error.examples[0]
    assert len(content.coco["annotations"]) == 2


def test_classes_that_have_no_name_are_named_with_their_line(tmp_path):
    write_yolo(tmp_path, parts=PARTS)
    write_text(tmp_path / "data.yaml", YAML)
    write_text(tmp_path / "labels/train/b.txt", "2 0.5 0.5 0.1 0.1\n")

    (error,) = sound_content(read(tmp_path).coco)[1]

    assert error.kind == "annotations of unknown classes"
    assert error.examples == ["labels/train/b.txt, line 1: no category has the id 2; there are 0, 1"]


def test_without_names_classes_are_called_by_their_numbers_over_all_parts(tmp_path):
    write_yolo(tmp_path)
    write_text(tmp_path / "labels/val/d.txt", "3 0.5 0.5 0.1 0.1\n")

    assert [category["name"] for category in read(tmp_path).coco["categories"]] == ["0", "1", "2", "3"]


def test_names_are_texts_whatever_yaml_makes_of_them(tmp_path):
    write_yolo(tmp_path, parts=PARTS)
    write_text(tmp_path / "data.yaml", "names: [no, 1]\ntrain: images/train\n")

    assert [category["name"] for category in read(tmp_path).coco["categories"]] == ["no", "1"]


def test_sizes_are_those_of_the_upright_images(tmp_path):
    write_yolo(tmp_path, parts=PARTS)
    write_text(tmp_path / "data.yaml", YAML)
    turned = Image.Exif()
    turned[274] = 6
    Image.new("RGB", (64, 48)).save(tmp_path / "images/train/a.jpg", exif=turned)
    (tmp_path / "images/train/a.png").unlink()

    image = read(tmp_path).coco["images"][0]

    assert (image["file_name"], image["width"], image["height"]) == ("images/train/a.jpg", 48, 64)


@pytest.mark.parametrize(
    "text, said",
    [
        ("names: [", r"data\.yaml: not a yaml file"),
        ("names: cat\ntrain: images/train\n", r"data\.yaml: 'names' must be a list"),
        ("names: {a: cat}\ntrain: images/train\n", r"data\.yaml: 'names' must be a list"),
        ("names: [cat]\ntrain: images/gone\n", r"data\.yaml: train: images/gone does not exist"),
    ],
)
def test_yaml_files_that_cannot_be_used_are_named(tmp_path, text, said):
    write_yolo(tmp_path, parts=PARTS)
    write_text(tmp_path / "data.yaml", text)

    with pytest.raises(InputError, match=said):
        read(tmp_path)


def test_a_test_part_that_is_named_but_not_there_is_none(tmp_path):
    write_yolo(tmp_path, parts=PARTS)
    write_text(tmp_path / "data.yaml", YAML + "test: ../test/images\n")

    assert list(find_yolo_yaml(str(tmp_path))) == ["train"]


def test_parts_that_share_a_folder_do_not_miss_each_others_images(tmp_path):
    write_yolo(tmp_path, "images", "labels")
    write_text(tmp_path / "train.txt", "images/a.png\nimages/b.png\n")
    write_text(tmp_path / "val.txt", "images/c.png\nimages/d.png\nimages/gone.png\n")
    write_text(tmp_path / "data.yaml", "names: [cat, dog]\ntrain: train.txt\nval: val.txt\n")

    assert problems(read(tmp_path), "warning") == []
    (error,) = problems(read(tmp_path, "val"), "error")
    assert error.examples == [f"{tmp_path}/images/gone.png: the image is missing"]


def test_labels_without_images_and_images_without_any_labels_are_named(tmp_path):
    write_yolo(tmp_path)
    write_text(tmp_path / "data.yaml", "names: [cat, dog]\ntrain: images/train\nval: photos\n")
    write_text(tmp_path / "labels/train/gone.txt", "0 0.5 0.5 0.1 0.1\n")
    write_image(tmp_path / "photos/c.png", (8, 8))
    (tmp_path / "images/train/a.png").write_text("no image")

    (warning,) = problems(read(tmp_path), "warning")
    assert (warning.kind, warning.examples) == ("label files without an image", ["labels/train/gone.txt"])
    (unreadable,) = problems(read(tmp_path), "error")
    assert "images/train/a.png: the image cannot be read" in unreadable.examples[0]
    (error,) = problems(read(tmp_path, "val"), "error")
    assert error.kind == "no labels at all"
