"""Input of any content: it is used, and then all is finite, or it is refused in one line."""

import copy
import json
import math

import numpy as np
import pytest
import torch
import yaml
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.modeling import build_model
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from atss.config import load_config
from atss.data.coco import dicts_of
from atss.data.entries import sound_content
from atss.data.inspection import Table, inspect
from atss.data.mapper import BoxDatasetMapper
from atss.errors import InputError
from tests.helpers import DEMO_CONFIG, TINY, pairs

pytestmark = pytest.mark.slow

ONCE = settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
# A model without datasets.
ALONE = {
    **TINY, "MODEL.ATSS.NUM_CLASSES": 2, "MODEL.ATSS.CLASS_NAMES": ["a", "b"], "DATASETS.TRAIN": (),
    "DATASETS.TEST": (),
}  # fmt: skip
NUMBERS = st.one_of(
    st.sampled_from([0, 1, -1, 0.5, 64, 48, 1e-30, 1e8, 1e9, 1e308, -1e308, 2**31, 2**63, 2**64, 10**400]),
    st.sampled_from([math.nan, math.inf, -math.inf]), st.integers(), st.floats(),
)  # fmt: skip
LEAVES = st.one_of(
    st.none(), st.booleans(), NUMBERS, st.text(max_size=8), st.sampled_from(["../a.png", "/a", "\ud800"])
)
JSON = st.recursive(
    LEAVES,
    lambda x: st.one_of(st.lists(x, max_size=4), st.dictionaries(st.text(max_size=5), x, max_size=3)),
    max_leaves=6,
)
GOOD = {
    "images": [{"id": i, "file_name": f"{i}.png", "width": 64, "height": 48} for i in range(2)],
    "categories": [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}],
    "annotations": [
        {"id": i, "image_id": i, "category_id": (3, 7)[i], "bbox": [5, 5, 20.5, 30], "area": 600, "iscrowd": 0}
        for i in range(2)
    ],
}
# The same as programs on Windows export it.
EXPORTED = {
    "images": [{**image, "id": str(i), "file_name": f"C:\\x\\{i}.png"} for i, image in enumerate(GOOD["images"])],
    "categories": [{"id": "cat", "name": "cat"}],
    "annotations": [
        {"id": 1, "image_id": "0", "category_id": "cat", "segmentation": [[5, 5, 9, 5, 9, 9.5]]},
        {"id": 1, "image_id": 1, "category_id": "cat", "segmentation": {"size": [48, 64], "counts": "e7n0b000000[b2"}},
        {"id": 1, "image_id": 1, "category_id": "cat", "segmentation": {"size": [48, 64], "counts": [245, 30, 2797]}},
    ],
}


def places(content):
    """Every place of a json value: a container and a key or number in it."""
    keys = list(content) if isinstance(content, dict) else range(len(content)) if isinstance(content, list) else ()
    for key in keys:
        yield content, key
        yield from places(content[key])


@st.composite
def mutated(draw, good=GOOD):
    """The good content, of which some values are others, gone, or there twice."""
    content = copy.deepcopy(good)
    for _ in range(draw(st.integers(1, 3))):
        found = list(places(content))
        if not found:
            break
        container, key = found[draw(st.integers(0, len(found) - 1))]
        how = draw(st.sampled_from(["replace", "replace", "remove", "twice"]))
        if how == "replace":
            container[key] = draw(JSON)
        elif how == "remove":
            del container[key]
        elif isinstance(container, list):
            container.append(copy.deepcopy(container[key]))
    return content


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    for i in range(2):
        Image.new("RGB", (64, 48), (50 * i, 90, 120)).save(folder / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def trained(folder):
    """The mapper, and function: what it gave of an image -> losses and gradients of the predictions."""
    torch.manual_seed(0)
    cfg = load_config(DEMO_CONFIG, pairs(ALONE), read_datasets=False)
    model, mapper = build_model(cfg).train(), BoxDatasetMapper(cfg, is_train=True)
    # What is predicted is the same for all boxes.
    _, grid, predicted = model.predict([mapper(record) for record in dicts_of(GOOD, str(folder))][:1])

    def train(mapped):
        leaves = type(predicted)(*([x.detach().clone().requires_grad_() for x in maps] for maps in predicted))
        objects = mapped["instances"]
        losses = model.head.losses(
            grid, leaves, [objects.gt_boxes.tensor], [objects.gt_classes], model.ignore_boxes([mapped])
        )
        sum(losses.values()).backward()
        return losses, [x.grad for maps in leaves for x in maps]

    return mapper, train


def check_refusal(error):
    assert len(str(error).splitlines()) == 1, repr(error)


def used(read):
    """What `read()` returns, or None if it refuses its input, in one line."""
    try:
        return read()
    except InputError as error:
        check_refusal(error)


@ONCE
@given(content=st.one_of(mutated(), mutated(), mutated(EXPORTED), mutated(EXPORTED), JSON))
def test_annotation_files(folder, content):
    """Through the registry and the checks before training."""
    path = folder / "annotations.json"
    path.write_text(json.dumps(content))
    entries = [["any", str(path), str(folder)]]
    settings = {**TINY, "DATASETS.REGISTER": entries, "DATASETS.TRAIN": ("any",), "DATASETS.TEST": ()}
    try:
        found = used(lambda: (load_config(DEMO_CONFIG, pairs(settings)), DatasetCatalog.get("any")))
    finally:
        if "any" in DatasetCatalog.list():
            DatasetCatalog.remove("any")
            MetadataCatalog.remove("any")
    if found is None:
        return

    cfg, dicts = found
    assert cfg.MODEL.ATSS.NUM_CLASSES == len(cfg.MODEL.ATSS.CLASS_NAMES) > 0
    for record in dicts:
        assert (folder / record["file_name"]).resolve().parent == folder.resolve()
        for annotation in record["annotations"]:
            assert len(annotation["bbox"]) == 4 and all(map(math.isfinite, annotation["bbox"]))
            assert 0 <= annotation["category_id"] < cfg.MODEL.ATSS.NUM_CLASSES
    for problem in inspect([Table.of("any", dicts, cfg.MODEL.ATSS.CLASS_NAMES)], ["any"]):
        check_refusal(problem.line())


SIDES = st.one_of(NUMBERS, st.floats(-100, 200))


@ONCE
@given(boxes=st.lists(st.lists(SIDES, min_size=4, max_size=4), max_size=4), crowds=st.lists(st.booleans(), min_size=4))
def test_boxes_through_mapper_assigner_and_losses(folder, trained, boxes, crowds):
    """Those that the rules let pass train; all losses and gradients are finite."""
    content = copy.deepcopy(GOOD)
    content["annotations"] = [
        {"id": i, "image_id": 0, "category_id": 3, "bbox": box, "iscrowd": int(crowds[i])}
        for i, box in enumerate(boxes)
    ]
    coco, problems = sound_content(json.loads(json.dumps(content)))
    for problem in problems:
        check_refusal(problem.line())
    mapper, train = trained

    losses, gradients = train(mapper(dicts_of(coco, str(folder))[0]))

    assert all(torch.isfinite(loss) for loss in losses.values()), losses
    assert gradients and all(gradient.isfinite().all() for gradient in gradients)


def plain(node):
    return {key: plain(value) if isinstance(value, CfgNode) else value for key, value in node.items()}


@pytest.fixture(scope="module")
def sections():
    """Parts of a config as a run leaves it, as plain dicts."""
    found = plain(load_config(DEMO_CONFIG, pairs(ALONE), read_datasets=False))
    atss = {"MODEL": {"ATSS": found["MODEL"]["ATSS"]}}
    return [atss, *({key: found[key]} for key in ("INPUT", "SOLVER", "TEST"))]


@ONCE
@given(data=st.data())
def test_config_files(folder, sections, data):
    """Sections of a config in which values are others."""
    content = data.draw(st.one_of(*map(mutated, sections), JSON))
    path = folder / "config.yaml"
    try:
        path.write_text(f"_BASE_: {DEMO_CONFIG}\n" + yaml.safe_dump(content, allow_unicode=False))
    except (UnicodeEncodeError, yaml.YAMLError):  # nothing that yaml can hold
        return

    cfg = used(lambda: load_config(str(path), pairs(ALONE), read_datasets=False))

    assert cfg is None or cfg.is_frozen()


@ONCE
@given(text=st.one_of(st.text(), st.binary(max_size=60)))
def test_config_files_of_any_text(folder, text):
    path = folder / "config.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))

    assert used(lambda: load_config(str(path), ["MODEL.DEVICE", "cpu"])) is None


ATSS_KEYS = ["TOPK", "ASPECT_RATIOS", "NORM", "ASSIGNER", "SCALE_RANGES", "IOU_THRESHOLDS", "ANCHOR_SCALE"]
OTHER_KEYS = ["INPUT.MAX_PIXELS", "TEST.AUG.BOX_RANGES", "TEST.EVAL_PERIOD", "SOLVER.EMA_DECAY", "SOLVER.EARLY_STOP"]
NO_KEYS = ["MODEL", "A.B", "", "."]
KEYS = [*(f"MODEL.ATSS.{key}" for key in ATSS_KEYS), *OTHER_KEYS, *NO_KEYS, "MODEL.WEIGHTS", "MODEL.DEVICE"]
VALUES = st.one_of(JSON.map(repr), st.text(), st.text(alphabet="[](){}-+0123456789.,'e:"))


@ONCE
@given(opts=st.lists(st.tuples(st.sampled_from(KEYS), VALUES), max_size=3))
def test_overrides(opts):
    settings = [*pairs(ALONE), *(text for pair in opts for text in pair)]

    cfg = used(lambda: load_config(DEMO_CONFIG, settings, read_datasets=False))

    if cfg is not None:
        assert cfg.is_frozen() and isinstance(cfg.dump(), str) and np.isfinite(cfg.SOLVER.EMA_DECAY)
