#!/usr/bin/env python
"""Install Detectron2 0.6, as plain Python, into the environment that runs this script.

Detectron2 is not on the package index under its own name. A source distribution of version 0.6 is,
without the C++ sources; this project needs only the Python part. The script

1. leaves a Detectron2 that can already be imported alone, whatever its version;
2. downloads the source distribution and checks its SHA-256;
3. makes the changes listed in CHANGES and STAND_IN below, printing each with its reason;
4. installs the result with pip as the package `detectron2`.

Everything before step 4 happens in a temporary folder, so an interrupted run leaves nothing behind.
"""

import hashlib
import os
import subprocess
import sys
import tarfile
import tempfile
from importlib import metadata, util
from pathlib import Path

REQUIREMENT = "pb1-detectron2==0.6"
SHA256 = "5d2e9e51e523ec72f6a31cca04b0a515492e9514b773a3d134cedc0677170b29"

# (file, text that must stand in it exactly once, its replacement, why)
CHANGES = [
    (
        "detectron2/data/transforms/transform.py",
        "interp=Image.LINEAR",
        "interp=Image.BILINEAR",
        "Pillow 10 removed the name LINEAR; BILINEAR is the same filter",
    ),
]

# What `detectron2._C`, the compiled part, becomes.
STAND_IN_FILE = "detectron2/_C.py"
STAND_IN_REASON = "three layer files import the compiled part unconditionally; this one says what is missing when used"
STAND_IN = '''\
"""Stand-in for Detectron2's compiled part, which this installation does not have."""

# What Detectron2 prints about its environment.
get_compiler_version = get_cuda_version = lambda: "none: Detectron2 is installed as plain Python"
has_cuda = lambda: False


def __getattr__(name):
    raise AttributeError(
        f"detectron2._C.{name} needs Detectron2's compiled part, which this installation does not "
        "have. Build Detectron2 from its repository to use it."
    )
'''

# Takes the place of the archive's setup.py and setup.cfg, which compile sources that the archive lacks.
BUILD_FILE = "pyproject.toml"
BUILD_REASON = "the archive's own setup.py compiles C++ sources that the archive does not carry"
BUILD = """\
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"

[project]
name = "detectron2"
version = "0.6"
description = "Detectron2 0.6 as plain Python"

[tool.setuptools.packages.find]
include = ["detectron2*"]

[tool.setuptools.package-data]
"detectron2.model_zoo" = ["configs/**/*.yaml", "configs/**/*.py"]
"""


def main():
    if util.find_spec("detectron2") is not None:
        error = import_error()
        if error is None:
            print("Detectron2 is already here: nothing to do.")
            return
        # Without a version it is the remains of an interrupted installation.
        if installed_version() is not None:
            sys.exit(
                f"error: the Detectron2 {installed_version()} in this environment cannot be imported ({error}). "
                "Repair it, or remove it with `pip uninstall detectron2` and run this again."
            )
    with tempfile.TemporaryDirectory(prefix="detectron2-") as folder:
        source = unpack(download(Path(folder)), Path(folder))
        change(source)
        print("Installing it as the package detectron2 0.6", flush=True)
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
        subprocess.run([*pip, "--force-reinstall", str(source)], check=True)
    error = import_error()
    if error is not None:
        sys.exit(f"error: Detectron2 was installed but cannot be imported ({error})")
    print("Detectron2 0.6 is ready.")


def installed_version():
    """Version of the installed distribution `detectron2`, None where there is none."""
    try:
        return metadata.version("detectron2")
    except metadata.PackageNotFoundError:
        return None


def import_error():
    """Last line of what importing Detectron2 in a fresh interpreter prints, None if it works."""
    code = "import detectron2.data, detectron2.engine, detectron2.evaluation, detectron2.modeling"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tempfile.gettempdir())
    return None if run.returncode == 0 else (run.stderr.strip().splitlines() or ["no message"])[-1]


def download(folder):
    """Fetch the source distribution into `folder`, from the index that pip is set up with; check its hash."""
    print(f"Downloading {REQUIREMENT}", flush=True)
    command = [sys.executable, "-m", "unearth", REQUIREMENT, "--no-binary", "--download", str(folder)]
    index = os.environ.get("PIP_INDEX_URL") or pip_setting("global.index-url")
    run = subprocess.run([*command, *(["--index-url", index] if index else [])], capture_output=True, text=True)
    archives = list(folder.glob("*.tar.gz"))
    if run.returncode != 0 or len(archives) != 1:
        sys.exit(f"error: could not download {REQUIREMENT}:\n{run.stderr.strip() or run.stdout.strip()}")
    found = hashlib.sha256(archives[0].read_bytes()).hexdigest()
    if found != SHA256:
        sys.exit(f"error: {archives[0].name} has SHA-256 {found}, expected {SHA256}; nothing was installed")
    print(f"SHA-256 is as expected: {SHA256}")
    return archives[0]


def pip_setting(name):
    run = subprocess.run([sys.executable, "-m", "pip", "config", "get", name], capture_output=True, text=True)
    return run.stdout.strip() if run.returncode == 0 else None


def unpack(archive, folder):
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    return next(path for path in folder.iterdir() if path.is_dir())


def change(source):
    for name, old, new, why in CHANGES:
        text = (source / name).read_text()
        if text.count(old) != 1:
            sys.exit(f"error: expected {old!r} once in {name}, found it {text.count(old)} times")
        (source / name).write_text(text.replace(old, new))
        print(f"Changed {name}: {old} -> {new} ({why})")
    (source / STAND_IN_FILE).write_text(STAND_IN)
    print(f"Added {STAND_IN_FILE} ({STAND_IN_REASON})")
    for name in ("setup.py", "setup.cfg"):
        (source / name).unlink()
    (source / BUILD_FILE).write_text(BUILD)
    print(f"Replaced setup.py and setup.cfg with a {BUILD_FILE} ({BUILD_REASON})")
    print("Not changed, but pinned in requirements.txt: setuptools < 81 (the model zoo imports pkg_resources)")


if __name__ == "__main__":
    main()
