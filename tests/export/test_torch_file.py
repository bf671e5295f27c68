"""A .pt2 file runs with torch and torchvision alone."""

import subprocess
import sys
import textwrap

import pytest
import torch

from atss.export import ExportedATSS, capture, compare, load_torch, save_torch, suppress

METADATA = {"class_names": ["cat", "dog", "pig"], "suppressed": True}


@pytest.fixture(scope="module")
def detector(make_detector):
    return make_detector()


@pytest.fixture(scope="module")
def path(detector, tmp_path_factory):
    path = tmp_path_factory.mktemp("exported") / "model.pt2"
    save_torch(capture(ExportedATSS(detector, suppress)), path, METADATA)
    return path


def test_it_finds_what_the_detector_finds(detector, path, pictures):
    batches = [pictures[:1], pictures[1:], [pictures[0][:, :17, :16]]]

    comparison = compare(detector, load_torch(path), batches, suppressed=True)

    assert not comparison.disagreements and not comparison.num_undecided
    assert comparison.num_pictures == 5 and comparison.num_boxes > 60
    assert comparison.box_difference < 1e-3 and comparison.score_difference < 1e-5


def test_it_needs_nothing_of_this_project(path, pictures, tmp_path):
    script = """
        import json, sys
        sys.modules.update(atss=None, detectron2=None)
        import torch, torchvision
        extra = {"metadata.json": ""}
        model = torch.export.load(sys.argv[1], extra_files=extra).module()
        picture = torch.load(sys.argv[2])
        with torch.no_grad():
            torch.save(model(picture[None], torch.tensor([picture.shape[1:]])), sys.argv[3])
        print(extra["metadata.json"])
    """
    torch.save(pictures[0], tmp_path / "picture.pt")

    arguments = [sys.executable, "-c", textwrap.dedent(script), path, tmp_path / "picture.pt", tmp_path / "found.pt"]
    printed = subprocess.run(arguments, check=True, capture_output=True, text=True).stdout

    assert printed.strip() == '{"class_names": ["cat", "dog", "pig"], "suppressed": true}'
    size = torch.tensor([pictures[0].shape[1:]])
    for expected, found in zip(
        load_torch(path)(pictures[0][None], size), torch.load(tmp_path / "found.pt"), strict=True
    ):
        torch.testing.assert_close(found, expected)


def test_the_file_holds_no_paths_of_the_machine_that_made_it(path):
    assert b"site-packages" not in path.read_bytes() and b"atss/" not in path.read_bytes()
