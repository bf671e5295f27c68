"""Small datasets and models that the tests share."""

import json
import logging
import os

import pytest
import torch
from hypothesis import settings

# Without a GPU Triton's kernels run in its interpreter. It must be switched on before they are imported.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

from atss.config import load_config
from atss.data.shapes import generate
from tests.helpers import DEMO_CONFIG, TINY, pairs

settings.register_profile("default", max_examples=2000, deadline=None)
settings.register_profile("overnight", max_examples=1_000_000, deadline=None)
settings.load_profile("default")


@pytest.fixture(autouse=True, scope="session")
def few_threads():
    torch.set_num_threads(2)


@pytest.fixture(autouse=True)
def logs_can_be_captured():
    """The commands' logging, once set up in this process, keeps records from pytest, or gives it some twice."""
    logging.getLogger("atss").propagate = True
    logging.getLogger("atss").handlers.clear()


@pytest.fixture(scope="session")
def shapes(tmp_path_factory):
    """Two generated datasets: key-value pairs that register and use them."""
    folder = tmp_path_factory.mktemp("shapes")
    generate(folder / "train", 24, seed=1)
    generate(folder / "val", 8, seed=2)
    entries = [[f"tiny_{s}", str(folder / f"{s}.json"), str(folder / s)] for s in ("train", "val")]
    return {
        "DATASETS.REGISTER": entries, "DATASETS.TRAIN": ("tiny_train",), "DATASETS.TEST": ("tiny_val",)
    }  # fmt: skip


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
        from PIL import Image

        images = tmp_path / "images"
        images.mkdir(exist_ok=True)
        content = {"images": [], "annotations": [], "categories": [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}]}
        for i in range(3):
            Image.new("RGB", (64, 48), (50 * i, 90, 120)).save(images / f"{i}.png")
            content["images"].append({"id": i, "file_name": f"{i}.png", "width": 64, "height": 48})
            content["annotations"].append(
                {
                    "id": i,
                    "image_id": i,
                    "category_id": (3, 7)[i % 2],
                    "bbox": [5, 5, 20, 30],
                    "area": 600,
                    "iscrowd": 0,
                }
            )
        change(content)
        path = tmp_path / "annotations.json"
        path.write_text(json.dumps(content) if text is None else text)
        return str(path), str(images)

    return write
