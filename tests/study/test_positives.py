"""Positives per object, counted on the boxes and anchors of training."""

import math

import pytest
import torch
from detectron2.data import DatasetCatalog
from detectron2.modeling import build_model
from detectron2.structures import BoxMode

from atss.config import load_config
from atss.data.mapper import BoxDatasetMapper
from atss.modeling.assigners import ATSSAssigner, ScaleRangeAssigner
from atss.study.positives import Bin, Geometry, binned, count_positives, positives_of, positives_per_object
from tests.helpers import DEMO_CONFIG, TINY, pairs

# Training and testing see the same sizes, which no stride divides.
ODD_SIZES = {
    "INPUT.MIN_SIZE_TRAIN": (150,), "INPUT.MAX_SIZE_TRAIN": 170, "INPUT.MIN_SIZE_TEST": 150,
    "INPUT.MAX_SIZE_TEST": 170, "INPUT.RANDOM_FLIP": "none",
}  # fmt: skip


@pytest.fixture
def config_of(coco_file):
    """Function: changes to a small COCO-format content, values of INPUT -> config whose datasets hold it."""

    def make(change=lambda content: None, **sizes):
        datasets = {f"DATASETS.{use}": ("positives_small",) for use in ("TRAIN", "TEST")}
        datasets["DATASETS.REGISTER"] = [["positives_small", *coco_file(change)]]
        return load_config(DEMO_CONFIG, pairs({**TINY, **datasets, **{f"INPUT.{k}": v for k, v in sizes.items()}}))

    return make


def test_counts_are_those_of_a_training_step(tiny_config):
    cfg = tiny_config(ODD_SIZES)
    model, load = build_model(cfg), BoxDatasetMapper(cfg, True)
    expected = []
    for record in DatasetCatalog.get("tiny_val"):
        loaded = load(record)
        features = model.backbone(model.preprocess([loaded]).tensor)
        grid, _ = model.head([features[name] for name in model.in_features])
        boxes = loaded["instances"].gt_boxes.tensor
        matches = model.head.assigner(grid, [boxes])[0].tolist()
        expected += [[*(box[2:] - box[:2]).tolist(), matches.count(i)] for i, box in enumerate(boxes)]

    positives = positives_of(cfg, ["tiny_val"])

    found = zip(*(values.tolist() for values in positives[:3]), strict=True)
    assert list(map(list, found)) == expected


def test_datasets_in_order_with_a_given_assigner_or_that_of_the_config(tiny_config):
    cfg, assigner = tiny_config(), ScaleRangeAssigner()
    train, val = (positives_of(cfg, [name], assigner).counts.tolist() for name in ("tiny_train", "tiny_val"))

    assert positives_of(cfg, ["tiny_train", "tiny_val"], assigner).counts.tolist() == [*train, *val]
    assert positives_of(cfg, ["tiny_val"]).counts.tolist() != val
    cfg = tiny_config({"MODEL.ATSS.ASSIGNER": "ScaleRangeAssigner"})
    assert positives_per_object(cfg) == pytest.approx(sum(train) / len(train)), "over the training datasets"


def test_sizes_are_those_of_the_resized_image(config_of):
    # 64 x 48 images become 160 x 120; the boxes are 20 x 30.
    cfg = config_of(MIN_SIZE_TEST=120, MAX_SIZE_TEST=400)

    positives = positives_of(cfg, ["positives_small"])

    assert positives.widths.tolist() == [50] * 3
    assert positives.heights.tolist() == [75] * 3
    assert positives.scales.tolist() == [2.5] * 3
    assert positives.sides().tolist() == pytest.approx([math.sqrt(50 * 75)] * 3)
    assert positives.aspect_ratios().tolist() == [1.5] * 3

    unresized = positives_of(config_of(MIN_SIZE_TEST=0), ["positives_small"])
    assert unresized.widths.tolist() == [20] * 3


@pytest.mark.parametrize(
    "change, objects",
    [
        (lambda content: content["annotations"][0].update(iscrowd=1), 2),
        (lambda content: content["annotations"][1].update(bbox=[5, 5, 0, 30]), 2),  # without area
        (lambda content: content["images"][0].update(width=4000, height=4000), 3),  # not the file's size
        (lambda content: content["annotations"].clear(), 0),
    ],
)
def test_objects_that_are_counted(config_of, change, objects):
    cfg = config_of(change)

    assert len(positives_of(cfg, ["positives_small"]).counts) == objects
    assert math.isnan(positives_per_object(cfg)) == (objects == 0)


@pytest.fixture
def geometry(tiny_config):
    """Of the paper's anchors in images of 800 pixels."""
    sizes = {"INPUT.MIN_SIZE_TEST": 800, "INPUT.MAX_SIZE_TEST": 1333}
    return Geometry(tiny_config({**sizes, "MODEL.ATSS.ANCHOR_SCALE": 8.0}))


def lone_objects(sides, ratio, number=60):
    """Return dicts of 1200 x 800 images with one object each: a random side within `sides`, height / width `ratio`."""
    random = torch.Generator().manual_seed(1)
    records = []
    for _ in range(number):
        side, x, y = torch.rand(3, generator=random).tolist()
        side = sides[0] + side * (sides[1] - sides[0])
        width, height = side / ratio**0.5, side * ratio**0.5
        box = [x * (1200 - width), y * (800 - height), width, height]
        annotation = {"bbox": box, "bbox_mode": BoxMode.XYWH_ABS, "category_id": 0}
        records.append({"width": 1200, "height": 800, "annotations": [annotation]})
    return records


def mean_count(geometry, assigner, sides, ratio=1.0):
    return count_positives(geometry, lone_objects(sides, ratio), assigner).counts.double().mean().item()


@pytest.mark.parametrize("ratio", [1 / 3, 1, 3])
@pytest.mark.parametrize("sides", [(48, 96), (96, 200), (200, 400)])
def test_atss_makes_a_fifth_of_the_candidates_positive_for_all_sizes_and_shapes(geometry, sides, ratio):
    """Section 3.2: about 0.2 k L positives, 9 for k = 9 on five levels."""
    assert mean_count(geometry, ATSSAssigner(topk=9), sides, ratio) == pytest.approx(9, rel=0.4)


def test_scale_ranges_give_large_objects_more_positives(geometry):
    """Section 3.2: the strategies of RetinaNet and FCOS tend to have many more positives for larger objects."""
    small, large = (mean_count(geometry, ScaleRangeAssigner(), sides) for sides in ((16, 32), (200, 400)))

    assert large > 3 * small


def test_bins_are_even_on_a_log_axis_and_powers_of_two_are_edges():
    values = torch.tensor([8.0, 9, 15.9, 16, 64])
    counts = torch.tensor([0, 3, 6, 2, 7])

    assert binned(values, counts, per_octave=1) == [
        Bin(8, 16, 3, 3.0, 1.5, 4.5),
        Bin(16, 32, 1, 2.0, 2.0, 2.0),
        Bin(64, 128, 1, 7.0, 7.0, 7.0),
    ]
    assert [bin.low for bin in binned(values, counts)] == pytest.approx([8, 8 * 2**0.5, 16, 64])
    assert binned(torch.empty(0), torch.empty(0, dtype=torch.int64)) == []
