"""Every config of the model zoo: builds what the paper's table names, takes a training step, and finds boxes."""

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances

from atss.config import load_config
from atss.engine import Trainer
from atss.modeling.backbones.deformable import ModulatedDeformConv
from tests.helpers import ROOT

pytestmark = pytest.mark.slow

# Depth, groups, width of a group, stages with deformable layers, deformable towers, iterations.
ZOO = {
    "R_50_FPN_1x": (50, 1, 64, "", False, 90000),
    "R_50_FPN_1x_dcnv2": (50, 1, 64, "345", True, 90000),
    "R_50_FPN_3x": (50, 1, 64, "", False, 270000),
    "R_101_FPN_1x": (101, 1, 64, "", False, 90000),
    "R_101_FPN_2x": (101, 1, 64, "", False, 180000),
    "R_101_FPN_2x_dcnv2": (101, 1, 64, "345", True, 180000),
    "X_101_32x8d_FPN_2x": (101, 32, 8, "", False, 180000),
    "X_101_32x8d_FPN_2x_dcnv2": (101, 32, 8, "45", True, 180000),
    "X_101_64x4d_FPN_2x": (101, 64, 4, "", False, 180000),
    "X_101_64x4d_FPN_2x_dcnv2": (101, 64, 4, "45", True, 180000),
}
# Models with a dynamic head: images per batch, learning rate, sides of training images, multiple of padded sides.
DYHEAD = {
    "R_50_FPN_dyhead_1x": (16, 0.01, (800,), 128),
    "swin_T_FPN_dyhead_2x": (32, 1e-4, (640, 672, 704, 736, 768, 800), 128),
    "swin_L_FPN_dyhead_2x": (16, 5e-5, (480, 1200), 128),
}
# Steps and short sides of the images, by iterations.
SCHEDULES = {
    90000: ((60000, 80000), (800,), "choice"),
    180000: ((120000, 160000), (640, 800), "range"),
    270000: ((210000, 250000), (640, 800), "range"),
}
BLOCKS = {50: {"2": 3, "3": 4, "4": 6, "5": 3}, 101: {"2": 3, "3": 4, "4": 23, "5": 3}}


def test_the_zoo_is_complete():
    names = {path.stem.removeprefix("atss_") for path in ROOT.glob("configs/atss_[RX]_[51]0*.yaml")}

    assert names - {"R_10_FPN_demo", "R_10_FPN_study", *DYHEAD} == set(ZOO)


@pytest.mark.parametrize("name", ZOO)
def test_a_config_of_the_zoo(name):
    depth, groups, width, stages, deformable_towers, iterations = ZOO[name]
    cfg = load_config(f"configs/atss_{name}.yaml", ["MODEL.DEVICE", "cpu", "MODEL.ATSS.SCORE_THRESH_TEST", "0.0"])
    model = build_model(cfg)

    bottom_up = model.backbone.bottom_up
    assert {s: len(getattr(bottom_up, f"res{s}")) for s in "2345"} == BLOCKS[depth]
    assert bottom_up.res3[1].conv2.groups == groups and bottom_up.res3[1].conv2.weight.shape[0] == 2 * groups * width
    assert bottom_up.res3[0].conv1.stride == ((2, 2) if groups == 1 else (1, 1)), "1x1 for MSRA's, 3x3 for ResNeXt"
    deformable = [m for m in bottom_up.modules() if isinstance(m, ModulatedDeformConv)]
    assert len(deformable) == sum(BLOCKS[depth][s] for s in stages)
    assert all(isinstance(block.conv2, ModulatedDeformConv) for s in stages for block in getattr(bottom_up, f"res{s}"))
    towers = [m for m in model.head.modules() if isinstance(m, ModulatedDeformConv)]
    assert len(towers) == (2 if deformable_towers else 0)

    schedule = cfg.SOLVER.STEPS, cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MIN_SIZE_TRAIN_SAMPLING
    assert (cfg.SOLVER.MAX_ITER, *schedule) == (iterations, *SCHEDULES[iterations])

    takes_a_step_and_finds_boxes(cfg, model)


@pytest.mark.parametrize("name", DYHEAD)
def test_a_config_with_a_dynamic_head(name):
    opts = ["MODEL.DEVICE", "cpu", "MODEL.ATSS.SCORE_THRESH_TEST", "0.0", "MODEL.TIMM.PRETRAINED", "False"]
    cfg = load_config(f"configs/atss_{name}.yaml", opts)
    model = build_model(cfg)

    assert len(model.neck.blocks) == 6 and len(model.head.class_tower) == 0
    assert model.head.class_logits.kernel_size == (1, 1) and model.size_divisibility == DYHEAD[name][3]
    assert DYHEAD[name][:3] == (cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.BASE_LR, cfg.INPUT.MIN_SIZE_TRAIN)

    takes_a_step_and_finds_boxes(cfg, model)


def test_convnext():
    """Its recipe: a rate per layer, none of the decay for norms, biases and layer scales."""
    opts = ["MODEL.DEVICE", "cpu", "MODEL.ATSS.SCORE_THRESH_TEST", "0.0", "MODEL.TIMM.PRETRAINED", "False"]
    cfg = load_config("configs/atss_convnext_T_FPN_2x.yaml", opts)
    model = build_model(cfg)

    assert cfg.MODEL.TIMM.NAME == "convnext_tiny.fb_in22k" and cfg.INPUT.FORMAT == "RGB"
    assert cfg.MODEL.PIXEL_MEAN == [123.675, 116.28, 103.53] and cfg.MODEL.PIXEL_STD == [58.395, 57.12, 57.375]
    groups = {id(p): group for group in Trainer.build_optimizer(cfg, model).param_groups for p in group["params"]}
    body = model.backbone.bottom_up.model
    first, last = groups[id(body.stem[0].weight)], groups[id(body.stages[-1].blocks[-1].mlp.fc1.weight)]
    assert last["lr"] == pytest.approx(0.98e-4) and first["lr"] == pytest.approx(1e-4 * 0.98**19)
    assert first["weight_decay"] == 0.05 and groups[id(body.stages[0].blocks[0].gamma)]["weight_decay"] == 0.0
    assert groups[id(body.stem[1].weight)]["weight_decay"] == 0.0
    assert groups[id(model.head.class_logits.weight)]["lr"] == 1e-4
    takes_a_step_and_finds_boxes(cfg, model)


def test_mobilenet_as_in_openvino():
    opts = ["MODEL.DEVICE", "cpu", "MODEL.ATSS.SCORE_THRESH_TEST", "0.0", "MODEL.TIMM.PRETRAINED", "False"]
    cfg = load_config("configs/atss_mobilenetv2_FPN.yaml", opts)
    model = build_model(cfg)

    shapes = model.backbone.bottom_up.output_shape()
    assert {name: (s.channels, s.stride) for name, s in shapes.items()} == {
        "res3": (32, 8),
        "res4": (96, 16),
        "res5": (320, 32),
    }
    assert {s.channels for s in model.backbone.output_shape().values()} == {64} and len(model.head.class_tower) == 4
    assert sum(p.numel() for p in model.parameters()) < 2.6e6, "10 MB in float32"
    optimizer = Trainer.build_optimizer(cfg, model)
    assert {(group["lr"], group["weight_decay"]) for group in optimizer.param_groups} == {(0.004, 0.0001)}
    takes_a_step_and_finds_boxes(cfg, model)


def takes_a_step_and_finds_boxes(cfg, model):
    optimizer = Trainer.build_optimizer(cfg, model)
    instances = Instances((64, 64), gt_boxes=Boxes(torch.tensor([[5.0, 8, 60, 50]])), gt_classes=torch.tensor([7]))
    image = torch.randint(0, 256, (3, 64, 64), generator=torch.Generator().manual_seed(0))
    before = model.head.class_logits.weight.clone()

    losses = model.train()([{"image": image, "instances": instances}])
    sum(losses.values()).backward()
    optimizer.step()

    assert all(loss.isfinite() for loss in losses.values())
    assert not torch.equal(before, model.head.class_logits.weight)
    with torch.no_grad():
        (found,) = model.eval()([{"image": image, "height": 128, "width": 128}])
    assert len(found["instances"]) > 0 and found["instances"].image_size == (128, 128)


@pytest.mark.parametrize("norm", ["SyncBN", "naiveSyncBN", "GN"])
def test_other_normalisations_and_clipped_gradients_by_config(tiny_config, norm):
    """Synchronised statistics of a single process are those of plain batch normalisation."""
    cfg = tiny_config(
        {
            "MODEL.RESNETS.NORM": norm, "MODEL.FPN.NORM": norm, "MODEL.ATSS.NORM": norm,
            "MODEL.RESNETS.STEM_OUT_CHANNELS": 32, "MODEL.RESNETS.RES2_OUT_CHANNELS": 32,
            "SOLVER.OPTIMIZER": "SGD", "SOLVER.CLIP_GRADIENTS.ENABLED": True,
            "SOLVER.CLIP_GRADIENTS.CLIP_TYPE": "norm", "SOLVER.CLIP_GRADIENTS.CLIP_VALUE": 1e-9,
            "SOLVER.MOMENTUM": 0.0, "SOLVER.WEIGHT_DECAY": 0.0,
        }
    )  # fmt: skip
    model = build_model(cfg).train()
    optimizer = Trainer.build_optimizer(cfg, model)
    instances = Instances((64, 64), gt_boxes=Boxes(torch.tensor([[5.0, 8, 60, 50]])), gt_classes=torch.tensor([3]))
    batch = [{"image": torch.rand(3, 128, 192) * 255, "instances": instances} for _ in range(2)]
    before = [p.detach().double().clone() for p in model.parameters()]

    sum(model(batch).values()).backward()
    optimizer.step()

    moved = sum((p.double() - b).square().sum() for p, b in zip(model.parameters(), before, strict=True)).sqrt()
    assert 0 < moved < 1e-4 * cfg.SOLVER.BASE_LR
