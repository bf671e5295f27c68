"""A .pt2 file runs with torch and torchvision alone."""

import subprocess
import sys
import textwrap

import pytest
import torch

from atss.export import ExportedATSS, capture, save_torch, suppress
from atss.export.verification import side_by_side
from tests.export.two_levels import make_detector

pytestmark = pytest.mark.slow

METADATA = {"class_names": ["cat", "dog", "pig"], "suppressed": True}


@pytest.fixture(scope="module")
def exported():
    return ExportedATSS(make_detector(), suppress)


@pytest.fixture(scope="module")
def path(exported, tmp_path_factory):
    path = tmp_path_factory.mktemp("exported") / "model.pt2"
    save_torch(capture(exported), path, METADATA)
    return path


def test_a_process_without_this_project_gets_the_same_detections(exported, path, images, tmp_path):
    """One image, several, and one whose feature maps have a cell at most."""
    script = """
        import sys
        sys.modules.update(atss=None, detectron2=None)
        import torch, torchvision
        extra = {"metadata.json": ""}
        model = torch.export.load(sys.argv[1], extra_files=extra).module()
        with torch.no_grad():
            torch.save([model(*batch) for batch in torch.load(sys.argv[2])], sys.argv[3])
        print(extra["metadata.json"])
    """
    batches = [side_by_side(batch) for batch in (images[:1], images, [images[0][:, :9, :1]])]
    torch.save(batches, tmp_path / "batches.pt")

    arguments = [sys.executable, "-c", textwrap.dedent(script), path, tmp_path / "batches.pt", tmp_path / "found.pt"]
    printed = subprocess.run(arguments, check=True, capture_output=True, text=True).stdout

    assert printed.strip() == '{"class_names": ["cat", "dog", "pig"], "suppressed": true}'
    for batch, found in zip(batches, torch.load(tmp_path / "found.pt"), strict=True):
        with torch.no_grad():
            torch.testing.assert_close(found, exported(*batch))


def test_the_file_holds_no_paths_of_the_machine_that_made_it(path):
    assert b"site-packages" not in path.read_bytes() and b"atss/" not in path.read_bytes()
