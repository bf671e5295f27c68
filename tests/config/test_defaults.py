"""Configs build what the paper describes."""

import pytest
import torch
from detectron2.modeling import build_model

from atss.engine import Trainer
from atss.modeling.assigners import ATSSAssigner
from atss.modeling.box_coding import BoxCoding
from tests.helpers import ROOT, paper_config

CONFIGS = sorted(ROOT.glob("configs/*.yaml"))


@pytest.fixture(scope="module")
def paper():
    cfg = paper_config()
    cfg.MODEL.ATSS.NUM_CLASSES = 80
    return cfg, build_model(cfg)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_is_plain_yaml_with_known_keys(path):
    assert paper_config(path).MODEL.META_ARCHITECTURE == "ATSS"


def test_every_key_has_a_comment():
    """A comment above each group of keys: no key stands right after an empty line."""
    lines = (ROOT / "projects/ATSS/atss/config/defaults.py").read_text().splitlines()
    keys = [i for i, line in enumerate(lines) if line.strip().startswith(("atss.", "cfg.DATASETS", "cfg.SOLVER"))]

    assert len(keys) > 20
    for i in keys:
        while i in keys:
            i -= 1
        assert lines[i].strip().startswith("#"), lines[i + 1]


def test_the_papers_model(paper):
    _, model = paper
    head = model.head

    assert model.in_features == ["p3", "p4", "p5", "p6", "p7"]
    assert head.strides == [8, 16, 32, 64, 128] and head.num_classes == 80 and head.anchor_offset == 0.5
    assert len(head.class_tower) == len(head.box_tower) == 4
    assert [a.tolist() for a in head.grid([(1, 1)] * 5).cell_anchors] == [
        [[-4.0 * s, -4.0 * s, 4.0 * s, 4.0 * s]] for s in head.strides
    ]
    assert isinstance(head.assigner, ATSSAssigner) and head.assigner.topk == 9
    assert isinstance(head.box_coding, BoxCoding) and head.box_coding.weights == (10, 10, 5, 5)
    assert (head.focal_loss_alpha, head.focal_loss_gamma, head.box_loss_weight) == (0.25, 2.0, 2.0)
    selector = head.box_selector
    assert (selector.score_threshold, selector.topk_per_level, selector.nms_threshold) == (0.05, 1000, 0.6)
    assert selector.max_detections == 100
    assert 32.0e6 < sum(p.numel() for p in model.parameters()) < 32.5e6


def test_the_papers_schedule(paper):
    """A third of the rate for 500 iterations, then a tenth of it at 60k and again at 80k; biases at twice the rate."""
    cfg, model = paper
    optimizer = Trainer.build_optimizer(cfg, model)
    scheduler = Trainer.build_lr_scheduler(cfg, optimizer)
    rates = {}
    for iteration in (0, 499, 500, 59999, 60000, 79999, 80000, 89999):
        scheduler.last_epoch = iteration
        groups = zip(scheduler.get_lr(), optimizer.param_groups, strict=True)
        rates[iteration] = [round(rate / group["initial_lr"], 6) for rate, group in groups]

    expected = [1 / 3, 1 / 3, 1, 1, 0.1, 0.1, 0.01, 0.01]
    assert [r[0] for r in rates.values()] == pytest.approx(expected, abs=1e-5)
    assert all(len(set(r)) == 1 for r in rates.values())
    groups = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            group, is_bias = groups[id(parameter)], name.endswith("bias")
            assert (group["initial_lr"], group["weight_decay"]) == ((0.02, 0.0) if is_bias else (0.01, 1e-4)), name
    assert (optimizer.defaults["momentum"], cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.MAX_ITER) == (0.9, 16, 90000)


def test_the_long_schedule_with_many_scales():
    cfg = paper_config(ROOT / "configs/atss_R_101_FPN_2x.yaml")

    assert cfg.MODEL.RESNETS.DEPTH == 101
    assert (cfg.SOLVER.STEPS, cfg.SOLVER.MAX_ITER) == ((120000, 160000), 180000)
    assert (cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MIN_SIZE_TRAIN_SAMPLING) == ((640, 800), "range")
    assert (cfg.INPUT.MAX_SIZE_TRAIN, cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST) == (1333, 800, 1333)


def test_adamw_by_config(paper):
    cfg, model = paper[0].clone(), paper[1]
    cfg.SOLVER.OPTIMIZER = "AdamW"

    assert type(Trainer.build_optimizer(cfg, model)) is torch.optim.AdamW
