"""What a Detectron2 user does in a notebook: the code of docs/python.md, run as it stands, on generated images."""

import importlib
import json
import re
import shutil
import sys
import types
from pathlib import Path

import detectron2
import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.modeling import build_backbone, build_model
from detectron2.structures import Boxes, Instances

from atss.config import load_config
from atss.engine import Trainer
from atss.errors import InputError
from atss.predictor import ImageDetections
from tests.helpers import DEMO_CONFIG, ROOT, pairs, paper_config

# The heading of every section, and its blocks.
SECTIONS = {
    section.splitlines()[0]: re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    for section in (ROOT / "docs/python.md").read_text(encoding="utf-8").split("\n## ")
}
# What takes the place of the paper's model: one that trains two steps in a second.
SMALL = f"""
_BASE_: "{DEMO_CONFIG}"
MODEL:
  DEVICE: "cpu"
  RESNETS: {{STEM_OUT_CHANNELS: 8, RES2_OUT_CHANNELS: 8}}
  FPN: {{OUT_CHANNELS: 32}}
  ATSS: {{NUM_CONVS: 1, SCORE_THRESH_TEST: 0.001}}
SOLVER: {{MAX_ITER: 2, IMS_PER_BATCH: 2}}
OUTPUT_DIR: "output"
SEED: 1
"""
NO_DATA = {"DATASETS.TRAIN": (), "DATASETS.TEST": ()}


def run(heading, names):
    """Run the blocks of a section in the namespace `names`."""
    for block in SECTIONS[heading]:
        exec(compile(block, f"docs/python.md, {heading}", "exec"), names)


@pytest.fixture(scope="module")
def notebook(shapes, tmp_path_factory):
    """Folder of a notebook, and the names that it has after training."""
    folder = tmp_path_factory.mktemp("notebook")
    for name in ("cells_train", "cells_val"):  # other tests may have registered them
        DatasetCatalog.pop(name, None)
        MetadataCatalog.pop(name, None)
    for _, file, images in shapes["DATASETS.REGISTER"]:
        shutil.copytree(images, folder / "cells" / Path(images).name)
        shutil.copy(file, folder / "cells")
    shutil.copy(next((folder / "cells/val").iterdir()), folder / "street.jpg")
    (folder / "configs").mkdir()
    (folder / "configs/atss_R_50_FPN_1x.yaml").write_text(SMALL)
    names = {}
    torch.manual_seed(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run("Your datasets and Detectron2's trainer", names)
    yield folder, names
    for name in ("cells_train", "cells_val"):
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


@pytest.fixture
def names(notebook, monkeypatch):
    """A copy of the names, in the folder."""
    folder, names = notebook
    monkeypatch.chdir(folder)
    return {**names, "cfg": names["cfg"].clone()}


@pytest.mark.slow
def test_detectron2s_trainer_and_the_projects_train_and_evaluate(names):
    assert names["results"]["bbox"]["AP"] >= 0
    assert isinstance(names["trainer"], Trainer) and names["trainer"].iter == 2
    assert Path("output/model_final.pth").is_file() and Path("output/coco_instances_results.json").is_file()


@pytest.mark.slow
def test_detectron2s_predictor_and_the_projects_find_the_same(names):
    pytest.importorskip("supervision")

    run("Predict and draw", names)

    instances, found = names["instances"][names["instances"].scores >= 0.05], names["found"]
    assert len(found) > 0
    assert torch.equal(instances.pred_boxes.tensor, torch.from_numpy(found.boxes))
    assert torch.equal(instances.scores, torch.from_numpy(found.scores))
    assert found.names == [names["classes"][number] for number in instances.pred_classes]
    assert Path("drawn.jpg").stat().st_size > 0
    detections = names["detections"]
    assert np.array_equal(detections.xyxy, found.boxes) and np.array_equal(detections.confidence, found.scores)
    assert np.array_equal(detections.class_id, found.classes) and list(detections["class_name"]) == found.names


def losses(model):
    instances = Instances((160, 192), gt_boxes=Boxes([[8.0, 8, 56, 48]]), gt_classes=torch.tensor([1]))
    return model.train()([{"image": torch.zeros(3, 160, 192), "instances": instances}])


@pytest.mark.slow
def test_a_backbone_and_a_label_assignment_of_ones_own(names):
    run("A backbone of your own", names)
    assert type(names["model"].backbone.bottom_up).__name__ == "PlainBackbone"
    assert all(loss.isfinite() for loss in losses(names["model"]).values())

    run("A label assignment of your own", names)
    head = names["model"].head
    assert all(loss.isfinite() for loss in losses(names["model"]).values())
    boxes = torch.tensor([[0.0, 0, 64, 64], [16, 16, 32, 32], [5, 5, 5, 9]])
    matches = head.assigner(head.grid([(8, 8), (4, 4), (2, 2), (1, 1), (1, 1)]), [boxes, torch.empty(0, 4)])
    # Of the finest level: centres 4, 12, 20 and so on; the middles are 16 to 48, and 20 to 28.
    finest = matches[0, :64].view(8, 8)
    expected = torch.full((8, 8), -1)
    expected[2:6, 2:6] = 0
    assert torch.equal(finest, expected) and (matches[1] == -1).all()
    # Of the next: 8, 24, 40, 56; 24 is in the middle of both, and the smaller box wins.
    assert matches[0, 64:80].view(4, 4)[1:3, 1:3].tolist() == [[1, 0], [0, 0]]


@pytest.mark.slow
def test_the_results_are_what_fiftyone_reads(names):
    """As its documentation of `add_coco_labels` has it: dicts with ids of the dataset's images and categories, boxes in
    pixels as x, y, width, height, and a score."""
    for block in SECTIONS["FiftyOne"]:
        compile(block, "docs/python.md", "exec")
    entry = ["of_file", "cells/val.json", "cells/val"]
    settings = {**NO_DATA, "DATASETS.REGISTER": [entry], "DATASETS.TEST": ("of_file",), "TEST.VALIDATION_LOSS": False}
    cfg = load_config("configs/atss_R_50_FPN_1x.yaml", pairs(settings))
    Trainer.test(cfg, build_model(cfg))

    results = json.loads(Path("output/inference/coco_instances_results.json").read_text())
    content = json.loads(Path("cells/val.json").read_text())
    sizes = {image["id"]: (image["width"], image["height"]) for image in content["images"]}
    assert results and {r["category_id"] for r in results} <= {c["id"] for c in content["categories"]}
    for result in results:
        x, y, width, height = result["bbox"]
        limits = sizes[result["image_id"]]
        assert min(x, y) >= 0 and x + width <= limits[0] + 0.01 and y + height <= limits[1] + 0.01
        assert 0 <= result["score"] <= 1


@pytest.fixture
def importable_export(monkeypatch):
    """`detectron2.export` with its TracingAdapter alone, where the rest needs caffe2."""
    try:
        importlib.import_module("detectron2.export")
    except ImportError:
        package = types.ModuleType("detectron2.export")
        package.__path__ = [str(Path(detectron2.__file__).parent / "export")]
        monkeypatch.setitem(sys.modules, "detectron2.export", package)
        package.TracingAdapter = importlib.import_module("detectron2.export.flatten").TracingAdapter


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_traced_model_finds_the_same_in_every_image_of_its_size(names, importable_export):
    run("Predict and draw", names)
    names["cfg"].TEST.DETECTIONS_PER_IMAGE = 10000  # all that non-maximum suppression keeps
    run("TorchScript", names)

    traced, numbers = torch.jit.load("model.ts"), set()
    _, height, width = names["inputs"][0]["image"].shape
    for seed in range(3):
        image = torch.randint(0, 256, (3, height, width), generator=torch.Generator().manual_seed(seed))
        image[:, : seed * height // 3] = 0
        with torch.no_grad():
            expected = names["model"]([{"image": image}])[0]["instances"]
            found = names["adapter"].outputs_schema(traced(image.to(torch.uint8)))[0]["instances"]
        assert torch.equal(found.pred_boxes.tensor, expected.pred_boxes.tensor)
        assert torch.equal(found.scores, expected.scores) and torch.equal(found.pred_classes, expected.pred_classes)
        numbers.add(len(found))
    assert len(numbers) > 1, "the number of detections is not that of the traced image"


def test_supervision_that_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "supervision", None)
    none = ImageDetections(np.empty((0, 4), np.float32), np.empty(0, np.float32), np.empty(0, np.int64), [])

    with pytest.raises(InputError, match=r"^to_supervision needs supervision: pip install supervision$"):
        none.to_supervision()


def test_no_detections_for_supervision():
    pytest.importorskip("supervision")
    none = ImageDetections(np.empty((0, 4), np.float32), np.empty(0, np.float32), np.empty(0, np.int64), [])

    detections = none.to_supervision()

    assert len(detections) == 0 and detections["class_name"].shape == (0,)


def test_a_model_needs_a_number_of_classes():
    with pytest.raises(
        InputError, match=r"^MODEL\.ATSS\.NUM_CLASSES is 0: set it .* or load the config with .*load_co"
    ):
        build_model(paper_config())


@pytest.mark.slow
def test_a_plain_config_with_a_model_of_timm_is_warned_of_the_statistics(caplog):
    pytest.importorskip("timm")
    values = {
        "MODEL.ATSS.NUM_CLASSES": 2, "MODEL.DEVICE": "cpu", "MODEL.BACKBONE.NAME": "build_timm_fpn_backbone",
        "MODEL.TIMM.NAME": "resnet10t",
    }  # fmt: skip
    loaded, plain = load_config(DEMO_CONFIG, pairs({**values, **NO_DATA})), paper_config(DEMO_CONFIG)
    plain.merge_from_list([part for pair in values.items() for part in pair])

    build_backbone(loaded)
    assert "other images" not in caplog.text
    build_backbone(plain)
    assert "resnet10t has been trained with other images: MODEL.PIXEL_MEAN [103.53, 116.28, 123.675]" in caplog.text
