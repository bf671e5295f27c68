"""YOLO's text files: lines, classes, and errors."""

import pytest
from PIL import Image

from atss.data.entries import sound_content
from atss.data.yolo import find_yolo_folders, find_yolo_yaml, read_line
from atss.errors import InputError
from tests.own_data import IMAGES, write_image, write_text, write_yolo

YAML = "names: [cat, dog]\ntrain: images/train\n"


def read(folder, split="train"):
    return {**find_yolo_folders(str(folder)), **find_yolo_yaml(str(folder))}[split].read()


@pytest.fixture
def folder(tmp_path):
    """A dataset with the split train and a yaml file."""
    write_yolo(tmp_path, splits={"train": IMAGES["train"]}, yaml=YAML)
    return tmp_path


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
def test_boxes_polygons_and_boxes_with_keypoints(line, keypoints, box):
    label, read = read_line(line, keypoints)

    assert label == 1 and read == pytest.approx(box)


@pytest.mark.parametrize(
    "line, reason",
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
def test_malformed_lines_are_named_with_file_and_number_and_the_others_are_read(folder, line, reason):
    write_text(folder / "labels/train/a.txt", f"0 0.5 0.5 0.1 0.1\n\n{line}\n")

    content = read(folder)

    (error,) = problems(content, "error")
    assert error.examples[0].startswith("labels/train/a.txt, line 3: ") and reason in error.examples[0]
    assert len(content.coco["annotations"]) == 2


def test_unknown_classes_are_named_with_file_and_number(folder):
    write_text(folder / "labels/train/b.txt", "2 0.5 0.5 0.1 0.1\n")

    (error,) = sound_content(read(folder).coco)[1]

    assert error.kind == "annotations of unknown classes"
    assert error.examples == ["labels/train/b.txt, line 1: no category has the id 2; there are 0, 1"]


def test_classes_are_called_by_their_numbers_over_all_splits_or_by_names_that_yaml_would_convert(tmp_path):
    write_yolo(tmp_path)
    write_text(tmp_path / "labels/val/d.txt", "3 0.5 0.5 0.1 0.1\n")
    assert [category["name"] for category in read(tmp_path).coco["categories"]] == ["0", "1", "2", "3"]

    write_text(tmp_path / "data.yaml", "names: [no, 1]\ntrain: images/train\n")
    assert [category["name"] for category in read(tmp_path).coco["categories"]] == ["no", "1"]


def test_image_sizes_are_those_of_the_upright_images(folder):
    turned = Image.Exif()
    turned[274] = 6
    Image.new("RGB", (64, 48)).save(folder / "images/train/a.jpg", exif=turned)
    (folder / "images/train/a.png").unlink()

    image = read(folder).coco["images"][0]

    assert (image["file_name"], image["width"], image["height"]) == ("images/train/a.jpg", 48, 64)


@pytest.mark.parametrize(
    "text, reason",
    [
        ("names: [", r"data\.yaml: not a yaml file"),
        ("names: cat\ntrain: images/train\n", r"data\.yaml: 'names' must be a list"),
        ("names: {a: cat}\ntrain: images/train\n", r"data\.yaml: 'names' must be a list"),
        ("names: [cat]\ntrain: images/gone\n", r"data\.yaml: train: .images/gone. does not exist"),
    ],
)
def test_malformed_yaml_files_are_named(folder, text, reason):
    write_text(folder / "data.yaml", text)

    with pytest.raises(InputError, match=reason):
        read(folder)


def test_a_test_split_that_does_not_exist_is_ignored(folder):
    write_text(folder / "data.yaml", YAML + "test: ../test/images\n")

    assert list(find_yolo_yaml(str(folder))) == ["train"]


def test_label_files_of_other_splits_in_the_same_folder_are_no_problem(tmp_path):
    write_yolo(tmp_path, "images", "labels", yaml="names: [cat, dog]\ntrain: train.txt\nval: val.txt\n")
    write_text(tmp_path / "train.txt", "images/a.png\nimages/b.png\n")
    write_text(tmp_path / "val.txt", "images/c.png\nimages/d.png\nimages/gone.png\n")

    assert problems(read(tmp_path), "warning") == []
    (error,) = problems(read(tmp_path, "val"), "error")
    assert error.examples == [f"{tmp_path}/images/gone.png: the image is missing"]


def test_label_files_without_images_and_images_without_any_labels_are_named(tmp_path):
    write_yolo(tmp_path, yaml="names: [cat, dog]\ntrain: images/train\nval: photos\n")
    write_text(tmp_path / "labels/train/gone.txt", "0 0.5 0.5 0.1 0.1\n")
    write_image(tmp_path / "photos/c.png", (8, 8))
    (tmp_path / "images/train/a.png").write_text("no image")

    (warning,) = problems(read(tmp_path), "warning")
    assert (warning.kind, warning.examples) == ("label files without an image", ["labels/train/gone.txt"])
    (unreadable,) = problems(read(tmp_path), "error")
    assert "images/train/a.png: the image cannot be read" in unreadable.examples[0]
    (error,) = problems(read(tmp_path, "val"), "error")
    assert error.kind == "no labels at all"


@pytest.mark.parametrize("top", ["C:\\cells\\", "/home/someone/cells/", "..\\..\\cells\\", "cells/"])
def test_paths_of_other_computers_in_the_yaml_file_and_in_lists(tmp_path, top):
    separator = "\\" if "\\" in top else "/"
    folders, listed = tmp_path / "folders", tmp_path / "listed"
    write_yolo(folders, yaml=f"names: [cat, dog]\ntrain: {top}images{separator}train\nval: images{separator}val\n")
    write_yolo(listed, yaml="names: [cat, dog]\ntrain: train.txt\nval: val.txt\n")
    for split in ("train", "val"):
        names = [f"{top}images{separator}{split}{separator}{name}\n" for name, *_ in IMAGES[split]]
        write_text(listed / f"{split}.txt", "".join(names))

    for folder, kind in ((folders, "folders found by their names"), (listed, "images found by their names")):
        content = read(folder)
        assert [image["file_name"] for image in content.coco["images"]] == ["images/train/a.png", "images/train/b.png"]
        assert [problem.kind for problem in content.problems] == [kind]
        assert len(content.coco["annotations"]) == 3


def test_a_path_of_another_computer_is_not_shortened_to_another_split(folder):
    write_text(folder / "data.yaml", YAML + "val: /home/someone/val/images/train\n")

    with pytest.raises(InputError, match=r"data\.yaml: val: ./home/someone/val/images/train. does not exist"):
        read(folder, "val")


def test_images_of_the_same_name_in_a_list_of_another_computer_are_not_guessed(folder):
    write_image(folder / "images/b/a.png", (64, 48))
    write_text(folder / "train.txt", "D:\\a.png\nD:\\images\\b\\a.png\n")
    write_text(folder / "data.yaml", "names: [cat, dog]\ntrain: train.txt\n")

    with pytest.raises(InputError, match=r"train\.txt: lists 'D:/a\.png' could be .* \(1 of 2 images\)"):
        read(folder)


def test_names_of_folders_with_control_characters_make_one_line(tmp_path):
    write_image(tmp_path / "ima\n\x1b[31mges/a.png", (64, 48))
    write_text(tmp_path / "data.yaml", 'names: [cat]\ntrain: "/elsewhere/ima\\n\\e[31mges"\n')

    moved, unlabeled = read(tmp_path).problems

    assert moved.examples[0].endswith("/ima\\n\\x1b[31mges"), "which is found by its name"
    assert all(example.isprintable() for problem in (moved, unlabeled) for example in problem.examples)
