"""The installer of Detectron2, without the network."""

import io
import tarfile
from types import SimpleNamespace

import pytest

import install_detectron2 as installer
from tests.helpers import run


@pytest.fixture
def archive(tmp_path):
    files = {
        "detectron2/data/transforms/transform.py": "def f(interp=Image.LINEAR): ...\n",
        "detectron2/__init__.py": "",
        "setup.py": "import torch\n",
        "setup.cfg": "",
    }
    path = tmp_path / "detectron2.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for name, text in files.items():
            entry = tarfile.TarInfo(f"detectron2-0.6/{name}")
            entry.size = len(text)
            tar.addfile(entry, io.BytesIO(text.encode()))
    return path


@pytest.mark.slow
def test_a_working_detectron2_is_left_alone():
    result = run("tools/install_detectron2.py")

    assert result.stdout == "Detectron2 is already here: nothing to do.\n"


def test_changes_are_made_and_said(archive, tmp_path, capsys):
    source = installer.unpack(archive, tmp_path)

    installer.change(source)

    assert (source / "detectron2/data/transforms/transform.py").read_text() == "def f(interp=Image.BILINEAR): ...\n"
    assert (source / "detectron2/_C.py").is_file() and (source / "pyproject.toml").is_file()
    assert not (source / "setup.py").exists()
    said = capsys.readouterr().out
    assert all(part in said for part in ("transform.py", "Pillow 10", "_C.py", "compiled part", "setuptools < 81"))


def test_a_source_that_is_not_as_expected_is_refused(archive, tmp_path):
    source = installer.unpack(archive, tmp_path)
    (source / "detectron2/data/transforms/transform.py").write_text("nothing\n")

    with pytest.raises(SystemExit, match="found it 0 times"):
        installer.change(source)


def test_the_stand_in_says_what_is_missing():
    stand_in = {}
    exec(installer.STAND_IN, stand_in)

    assert not stand_in["has_cuda"]()
    with pytest.raises(AttributeError, match=r"deform_conv_forward needs Detectron2's compiled part"):
        stand_in["__getattr__"]("deform_conv_forward")


def test_another_hash_is_refused(tmp_path, monkeypatch):
    def fetch(command, **options):
        (tmp_path / "detectron2.tar.gz").write_bytes(b"something else")
        return SimpleNamespace(returncode=0, stdout="", stderr="")

    monkeypatch.setattr(installer.subprocess, "run", fetch)

    with pytest.raises(SystemExit, match="expected " + installer.SHA256):
        installer.download(tmp_path)
