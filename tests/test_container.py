"""The container image gets what its step, `make env`, needs. It is not built here."""

import re
import subprocess

from tests.helpers import ROOT


def test_the_image_gets_what_its_environment_is_built_from(tmp_path):
    """Also what is installed: the package and the configs."""
    allowed = re.findall(r"^!(.+)", (ROOT / ".dockerignore").read_text(), re.M)
    for name in allowed:
        (tmp_path / name).symlink_to(ROOT / name)

    steps = subprocess.run(
        ["make", "--dry-run", "env"], cwd=tmp_path, check=True, capture_output=True, text=True
    ).stdout

    files = re.findall(r"--requirement (\S+)|python (\S+\.py)|(--editable) \.", steps)
    named = ["".join(file) for file in files]
    assert named == ["requirements.txt", "tools/install_detectron2.py", "--editable"]
    for name in [*named[:2], "pyproject.toml", "setup.py", "README.md", "LICENSE", "projects/ATSS", "configs"]:
        assert (tmp_path / name).exists(), name
