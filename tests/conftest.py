"""Small datasets and models that the tests share, and the commands run as a user runs them."""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import settings

# Without a GPU Triton's kernels run in its interpreter. It must be switched on before they are imported.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

from detectron2.config import get_cfg

from atss import add_atss_config
from atss.data.shapes import generate
from atss.run import load_config

settings.register_profile("default", max_examples=2000, deadline=None)
settings.register_profile("overnight", max_examples=1_000_000, deadline=None)
settings.load_profile("default")

ROOT = Path(__file__).parent.parent
DEMO_CONFIG = str(ROOT / "configs/atss_R_10_FPN_demo.yaml")

# A model that takes a training step in tens of milliseconds.
TINY = {
    "MODEL.RESNETS.STEM_OUT_CHANNELS": 8,
    "MODEL.RESNETS.RES2_OUT_CHANNELS": 8,
    "MODEL.FPN.OUT_CHANNELS": 32,
    "MODEL.ATSS.NUM_CONVS": 1,
    "MODEL.DEVICE": "cpu",
    "DATALOADER.NUM_WORKERS": 0,
    "SOLVER.IMS_PER_BATCH": 4,
    "SOLVER.WARMUP_ITERS": 5,
    "SEED": 1,
}


def paper_config(**resnets):
    """The paper's config, with other values of MODEL.RESNETS."""
    cfg = get_cfg()
    add_atss_config(cfg)
    cfg.merge_from_file(str(ROOT / "configs/atss_R_50_FPN_1x.yaml"))
    cfg.MODEL.DEVICE = "cpu"
    for key, value in resnets.items():
        cfg.MODEL.RESNETS[key] = value
    return cfg


def pairs(settings):
    return [str(x) for pair in settings.items() for x in pair]


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
    """Function: key-value pairs -> config of the tiny model on the generated pictures."""

    def make(settings=None):
        return load_config(DEMO_CONFIG, pairs({**TINY, **shapes, **(settings or {})}))

    return make


@pytest.fixture
def coco_file(tmp_path):
    """Function: changes to a small COCO-format content -> path of the file, and its picture folder."""

    def write(change=lambda content: None, text=None):
        from PIL import Image

        pictures = tmp_path / "pictures"
        pictures.mkdir(exist_ok=True)
        content = {"images": [], "annotations": [], "categories": [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}]}
        for i in range(3):
            Image.new("RGB", (64, 48), (50 * i, 90, 120)).save(pictures / f"{i}.png")
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
        return str(path), str(pictures)

    return write


def run(*command, check=True, env=None):
    """Run a Python script of the project from its root; its exit status, output and errors."""
    result = subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONWARNINGS": "ignore", **(env or {})},
    )
    assert not check or result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    return result


def error_line(result):
    """The one line that a failed command ends with; nothing of a traceback beside it."""
    assert result.returncode != 0
    assert "Traceback" not in result.stdout + result.stderr, result.stdout[-2000:] + result.stderr[-2000:]
    line = result.stderr.strip().splitlines()[-1]
    assert line.startswith("error: "), result.stderr[-2000:]
    return line
