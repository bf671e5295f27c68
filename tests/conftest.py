"""Small datasets and models that the tests share."""

import json
import logging
import os

import pytest
import torch
from filelock import FileLock
from hypothesis import settings
from PIL import Image

# The processes of a test run, and those that they start, share the cores: more threads than cores would wait for each
# other.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"
# Without a GPU Triton's kernels run in its interpreter. It must be switched on before they are imported.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

from atss.config import load_config
from atss.data.shapes import generate
from tests.helpers import DEMO_CONFIG, SHORT, TINY, pairs, run_forked, train_command

settings.register_profile("default", max_examples=2000, deadline=None)
settings.register_profile("overnight", max_examples=1_000_000, deadline=None)
settings.load_profile("default")


@pytest.fixture(autouse=True, scope="session")
def few_threads():
    """The processes of a test run share the cores."""
    torch.set_num_threads(1 if "PYTEST_XDIST_WORKER" in os.environ else 2)


@pytest.fixture(autouse=True)
def logs_can_be_captured():
    """The commands' logging, once set up in this process, keeps records from pytest, or gives it some twice."""
    logging.getLogger("atss").propagate = True
    logging.getLogger("atss").handlers.clear()


@pytest.fixture(scope="session")
def once(tmp_path_factory):
    """Function: name, function that fills a folder -> the folder, filled once for all processes of the test run."""
    root = tmp_path_factory.getbasetemp()
    root = root.parent if "PYTEST_XDIST_WORKER" in os.environ else root

    def filled(name, fill):
        folder, done = root / name, root / f"{name}.done"
        with FileLock(f"{folder}.lock"):
            if not done.exists():
                folder.mkdir()
                fill(folder)
                done.touch()
        return folder

    return filled


@pytest.fixture(scope="session")
def shapes(once):
    """Two generated datasets: key-value pairs that register and use them."""

    def fill(folder):
        generate(folder / "train", 24, seed=1)
        generate(folder / "val", 8, seed=2)

    folder = once("shapes", fill)
    entries = [[f"tiny_{s}", str(folder / f"{s}.json"), str(folder / s)] for s in ("train", "val")]
    return {"DATASETS.REGISTER": entries, "DATASETS.TRAIN": ("tiny_train",), "DATASETS.TEST": ("tiny_val",)}


@pytest.fixture(scope="session")
def finished_run(once, shapes):
    """Folder of a run of the tiny model that `train_net.py` has finished, with two evaluations and a report; what the
    command printed is in `printed.txt` there. Read it, and write nothing into it."""

    def fill(folder):
        settings = {**SHORT, **shapes, "OUTPUT_DIR": folder, "TEST.EVAL_PERIOD": 12, "MODEL.DEVICE": "cuda"}
        result = run_forked(*train_command(settings))
        (folder / "printed.txt").write_text(result.stdout + result.stderr)

    return once("finished_run", fill)


@pytest.fixture
def tiny_config(shapes):
    """Function: key-value pairs -> config of the tiny model on the generated images."""

    def make(settings=None):
        return load_config(DEMO_CONFIG, pairs({**TINY, **shapes, **(settings or {})}))

    return make


@pytest.fixture
def coco_file(tmp_path):
    """Function: changes to a small COCO-format content -> path of the file, and its image folder."""

    def write(change=lambda content: None, text=None):
        images = tmp_path / "images"
        images.mkdir(exist_ok=True)
        content = {"images": [], "annotations": [], "categories": [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}]}
        for i in range(3):
            Image.new("RGB", (64, 48), (50 * i, 90, 120)).save(images / f"{i}.png")
            content["images"].append({"id": i, "file_name": f"{i}.png", "width": 64, "height": 48})
            box = {"bbox": [5, 5, 20, 30], "area": 600, "iscrowd": 0}
            content["annotations"].append({"id": i, "image_id": i, "category_id": (3, 7)[i % 2], **box})
        change(content)
        path = tmp_path / "annotations.json"
        path.write_text(json.dumps(content) if text is None else text)
        return str(path), str(images)

    return write
