"""Images by paths of other computers: what is found, what is not guessed, and nothing outside of the folder."""

import os

import pytest

from atss.data.image_paths import locate_images
from tests.own_data import write_text

OUTSIDE = ["/etc/passwd", "../secret.png", "..\\secret.png", "C:\\secret.png", "\\\\server\\secret.png", "..\\", ".."]
UNUSABLE = ["", ".", "\0", "0.png\0", "\ud800.png", "a" * 5000, "sub", "nowhere.png"]


@pytest.fixture
def folder(tmp_path):
    write_text(tmp_path / "secret.png", "")
    for name in ("0.png", "a/1.png", "b/1.png", "b/2.png", "train/3.png", "back\\slash.png"):
        write_text(tmp_path / "images" / name, "")
    (tmp_path / "images/linked").symlink_to(tmp_path)
    return str(tmp_path / "images")


@pytest.mark.parametrize(
    "path, found, kind",
    [
        ("0.png", None, None),
        ("a/1.png", None, None),
        ("back\\slash.png", None, None),
        ("a\\1.png", "a/1.png", "file names with backslashes"),
        (".\\b\\2.png", "./b/2.png", "file names with backslashes"),
        ("images\\0.png", "0.png", "images found by their names"),
        ("..\\..\\media\\upload\\4\\0.png", "0.png", "images found by their names"),
        ("/home/someone/cells/0.png", "0.png", "images found by their names"),
        ("C:\\cells\\b\\1.png", "b/1.png", "images found by their names"),
        ("cells/2.png", "b/2.png", "images found by their names"),
        ("2.png", "b/2.png", "images found by their names"),
        ("D:\\train\\3.png", "train/3.png", "images found by their names"),
        ("D:\\1.png", None, "images that cannot be told apart"),
        ("val\\3.png", None, None),
        *((path, None, None) for path in OUTSIDE + UNUSABLE),
    ],
)
def test_a_path_and_its_image(folder, path, found, kind):
    moved, problems = locate_images([path], folder)

    assert moved == ({path: found} if found else {})
    assert [problem.kind for problem in problems] == ([kind] if kind else [])
    assert all(len(problem.line().splitlines()) == 1 for problem in problems)
    assert all(os.path.realpath(os.path.join(folder, name)).startswith(folder) for name in moved.values())


@pytest.mark.parametrize(
    "paths, taken", [(["x/0.png", "y/0.png"], ()), (["0.png", "x/0.png"], ()), (["x/0.png"], ["0.png"])]
)
def test_two_paths_are_not_found_at_the_same_image(folder, paths, taken):
    moved, (problem,) = locate_images(paths, folder, taken)

    assert moved == {} and problem.severity == "error"
    assert problem.examples[-1] == f"{paths[-1]!r} could be '0.png', as another path"


@pytest.mark.parametrize("top", ["C:\\cells\\", "D:\\elsewhere\\0\\"])
def test_the_time_does_not_grow_with_the_square_of_the_images_that_have_one_name(tmp_path, monkeypatch, top):
    """As where each image has a folder of its own."""
    for number in range(50):
        write_text(tmp_path / f"{number}/image.png", "")
    calls = []
    monkeypatch.setattr("atss.data.image_paths.splits_in", lambda parts: calls.append(parts) or {"train"})

    moved, _ = locate_images([f"{top}{number}\\image.png" for number in range(50)], str(tmp_path))

    assert moved == {f"{top}{number}\\image.png": f"{number}/image.png" for number in range(50)}
    assert len(calls) <= 4 * 50


def test_all_of_a_dataset_make_one_line_each(folder):
    _, problems = locate_images(["0.png", "a\\1.png", "x\\b\\1.png", "y\\2.png", "D:\\1.png"], folder)

    assert [(problem.kind, problem.extent()) for problem in problems] == [
        ("file names with backslashes", "1 of 5 images"),
        ("images found by their names", "2 of 5 images"),
        ("images that cannot be told apart", "1 of 5 images"),
    ]
    assert problems[1].examples[0] == "'x\\b\\1.png' is 'b/1.png'"
