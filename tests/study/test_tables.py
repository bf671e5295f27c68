"""The study's rows are the paper's: names, figures, and systems that build and learn."""

from itertools import pairwise

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances

from atss.study.tables import TABLES

# Equal systems of several tables once.
SYSTEMS = {repr(row.settings): row for table in TABLES.values() for row in table.rows}.values()


def row(number, name):
    (found,) = [row for row in TABLES[number].rows if row.name == name]
    return found


def aps(number):
    return [row.paper["AP"] for row in TABLES[number].rows]


def test_the_papers_figures():
    assert aps(1) == [32.5, 33.4, 34.9, 35.3, 36.8, 37.0, 37.8]
    assert aps(2) == [37.0, 36.9, 37.8, 37.8]
    assert aps(3) == [37.0, 39.3, 37.8, 38.6, 39.2]
    assert aps(4) == [38.0, 38.8, 39.1, 39.3, 39.1, 39.0, 39.1, 39.2, 38.9]
    assert [row.x for row in TABLES[4].rows] == [3, 5, 7, 9, 11, 13, 15, 17, 19]
    assert aps(5) == [39.0, 39.2, 39.3, 39.3, 38.9] and [row.x for row in TABLES[5].rows] == [5, 6, 7, 8, 9]
    assert aps(6) == [39.1, 39.0, 39.3, 39.3, 39.1] and [row.x for row in TABLES[6].rows] == [1 / 4, 1 / 2, 1, 2, 4]
    assert aps(7) == [36.3, 38.4, 39.2, 39.3, 39.2, 39.3]
    assert aps(8) == [39.2, 39.9, 40.2, 42.4]
    full = {"AP": 39.3, "AP50": 57.5, "AP75": 42.8, "APs": 24.3, "APm": 43.3, "APl": 51.3}
    assert row(3, "RetinaNet (#A=1) + ATSS").paper == full


def test_equal_systems_of_different_tables_have_equal_settings():
    assert row(1, "+ scalar").settings == row(2, "IoU, from a box").settings == row(3, "RetinaNet (#A=1)").settings
    fcos = row(3, "FCOS").settings
    assert row(1, "FCOS").settings == row(2, "spatial and scale constraint, from a point").settings == fcos
    papers = row(3, "RetinaNet (#A=1) + ATSS").settings
    assert row(4, "k = 9").settings == row(5, "8 strides").settings == row(6, "1:1").settings == papers
    assert row(7, "+ improvements + ATSS, 1 scale, 1 ratio").settings == papers


def test_every_improvement_of_table_1_changes_its_own_switch():
    rows = [row.settings for row in TABLES[1].rows]

    changed = [{key for key in a if a[key] != b[key]} for a, b in pairwise(rows)]

    assert [{key.removeprefix("MODEL.ATSS.") for key in keys} for keys in changed] == [
        {"NORM"}, {"BOX_LOSS", "BOX_LOSS_WEIGHT"}, {"CENTER_IN_BOX"}, {"CENTERNESS"}, {"LEVEL_SCALARS"},
        {"ASSIGNER", "BOX_CODING", "CENTER_IN_BOX"},
    ]  # fmt: skip


def test_table_7_varies_the_anchors_of_a_location():
    ratios, scales = "MODEL.ATSS.ASPECT_RATIOS", "MODEL.ATSS.SCALES_PER_OCTAVE"
    numbers = [len(row.settings[ratios]) * row.settings[scales] for row in TABLES[7].rows]

    assert numbers == [9, 9, 9, 3, 3, 1]


def test_table_8_adds_one_loss_at_a_time_to_the_papers_model_and_then_the_dynamic_head_alone():
    rows = [row.settings for row in TABLES[8].rows]

    changed = [{key for key in a if a[key] != b[key]} for a, b in pairwise(rows)]

    assert rows[0] == row(3, "RetinaNet (#A=1) + ATSS").settings
    assert changed[:2] == [{"MODEL.ATSS.CLASS_LOSS", "MODEL.ATSS.CENTERNESS"}, {"MODEL.ATSS.BOX_CODING"}]
    assert rows[0].items() <= rows[3].items() and rows[3].keys() - rows[0].keys() == {
        f"MODEL.ATSS.{key}" for key in ("DYHEAD_BLOCKS", "NUM_CONVS", "PREDICTOR_KERNEL")
    }


@pytest.mark.parametrize("row", SYSTEMS, ids=[row.name for row in SYSTEMS])
def test_every_system_builds_and_takes_a_training_step(tiny_config, row):
    model = build_model(tiny_config(row.settings)).train()
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    boxes = Boxes(torch.tensor([[5.0, 8, 40, 60], [50, 20, 120, 90]]))
    instances = Instances((96, 128), gt_boxes=boxes, gt_classes=torch.tensor([0, 3]))
    before = [parameter.clone() for parameter in model.head.parameters()]

    losses = model([{"image": torch.rand(3, 96, 128) * 255, "instances": instances} for _ in range(2)])
    sum(losses.values()).backward()
    optimizer.step()

    optional = {
        "loss_centerness": row.settings["MODEL.ATSS.CENTERNESS"],
        "loss_distribution": row.settings["MODEL.ATSS.BOX_CODING"] == "distribution",
    }
    assert set(losses) == {"loss_cls", "loss_box", *(name for name, used in optional.items() if used)}
    assert all(loss.isfinite() for loss in losses.values())
    assert losses["loss_box"] > 0, "some anchor is positive"
    assert any(not torch.equal(a, b) for a, b in zip(before, model.head.parameters(), strict=True))
