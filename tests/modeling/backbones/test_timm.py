"""Backbones of timm: what they compute, what of them learns, and what bad settings get."""

import sys

import pytest
import timm
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_backbone, build_model
from detectron2.structures import Boxes, Instances
from torch import nn

from atss.checkpoints import Checkpointer, is_pretrained
from atss.config import load_config
from atss.engine import Trainer
from atss.engine.optimizers import build_optimizer, with_backbone_rates
from atss.errors import InputError
from atss.modeling.backbones.timm import TimmBackbone, stages_of
from tests.helpers import DEMO_CONFIG, TINY, pairs, paper_config

# The smallest model of each family, with the channels of its feature maps of strides 8, 16 and 32.
FAMILIES = {
    "resnet10t": (128, 256, 512),
    "convnext_atto": (80, 160, 320),
    "swin_tiny_patch4_window7_224": (192, 384, 768),
    "mobilenetv3_small_050": (16, 24, 288),
    "efficientnet_lite0": (40, 112, 320),
    "hgnetv2_b0": (256, 512, 1024),
    "vit_tiny_patch16_224": (96, 192, 192),
}
THREE = ["res3", "res4", "res5"]


@pytest.fixture
def config(shapes):
    """Function: name of a model, other settings -> config of a small detector on it."""

    def make(name, settings=None):
        backbone = {"MODEL.BACKBONE.NAME": "build_timm_fpn_backbone", "MODEL.TIMM.NAME": name}
        return load_config(DEMO_CONFIG, pairs({**TINY, **shapes, **backbone, **(settings or {})}))

    return make


def backbone_config(name, **timm_keys):
    """Config of a backbone alone."""
    cfg = paper_config()
    cfg.MODEL.WEIGHTS, cfg.MODEL.BACKBONE.FREEZE_AT = "", 0
    cfg.MODEL.BACKBONE.NAME, cfg.MODEL.TIMM.NAME = "build_timm_fpn_backbone", name
    for key, value in timm_keys.items():
        cfg.MODEL.TIMM[key] = value
    return cfg


def refused(call, *args, **kwargs):
    with pytest.raises(InputError) as caught:
        call(*args, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture(scope="module")
def resnet_file(tmp_path_factory):
    """A ResNet's weights in a file as timm publishes them."""
    path = tmp_path_factory.mktemp("weights") / "model.pth"
    torch.save(timm.create_model("resnet10t").state_dict(), path)
    return str(path)


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_a_detector_on_a_family_trains_and_detects(config, name):
    cfg = config(name, {"MODEL.ATSS.SCORE_THRESH_TEST": 0.0})
    model = build_model(cfg)
    bottom_up = model.backbone.bottom_up
    assert tuple(shape.channels for shape in bottom_up.output_shape().values()) == FAMILIES[name]

    images = torch.randn(2, 3, 64, 96)  # neither square nor of the size that the model is made for
    for feature, found in bottom_up(images).items():
        shape = bottom_up.output_shape()[feature]
        assert found.shape == (2, shape.channels, 64 // shape.stride, 96 // shape.stride)
    assert [tuple(x.shape) for x in model.backbone(images).values()] == [
        (2, 32, *size) for size in ((8, 12), (4, 6), (2, 3), (1, 2), (1, 1))
    ]

    instances = Instances((64, 96), gt_boxes=Boxes(torch.tensor([[5.0, 8, 60, 50]])), gt_classes=torch.tensor([3]))
    batch = [{"image": torch.rand(3, 64, 96) * 255, "instances": instances} for _ in range(2)]
    optimizer = Trainer.build_optimizer(cfg, model)
    sum(model.train()(batch).values()).backward()
    without = [name for name, p in model.named_parameters() if p.grad is None]
    assert not without, "distributed training waits for the gradient of every parameter"
    optimizer.step()
    with torch.no_grad():
        (found, _) = model.eval()(batch)
    assert len(found["instances"]) > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in FAMILIES if not name.startswith("vit")])
def test_feature_maps_are_those_of_timm(name):
    backbone = TimmBackbone(name, THREE).eval()
    # Of whole windows: timm pads others in another way, see test_swin.py.
    size = {"strict_img_size": False, "always_partition": True} if name.startswith("swin") else {}
    theirs = timm.create_model(name, **size).eval()
    theirs.load_state_dict(backbone.model.state_dict(), strict=False)
    indices = [i for i, info in enumerate(theirs.feature_info) if info["reduction"] > 4]
    image = torch.randn(1, 3, *((224, 448) if size else (64, 96)))

    with torch.no_grad():
        ours, expected = backbone(image), theirs.forward_intermediates(image, indices, intermediates_only=True)

    assert [torch.equal(x, y) for x, y in zip(ours.values(), expected, strict=True)] == [True] * 3


def test_layers_behind_the_last_feature_map_are_left_out():
    names = set(TimmBackbone("resnet10t", ["res3", "res4"]).state_dict())

    assert {"model.layer3.0.conv1.weight"} < names and not any("layer4" in name or "fc" in name for name in names)


def test_a_plain_transformer_has_a_simple_feature_pyramid():
    backbone = TimmBackbone("vit_tiny_patch16_224", ["res2", *THREE])

    features = backbone(torch.randn(1, 3, 64, 96))

    assert {name: tuple(x.shape[1:]) for name, x in features.items()} == {
        "res2": (48, 16, 24), "res3": (96, 8, 12), "res4": (192, 4, 6), "res5": (192, 2, 3)
    }  # fmt: skip
    torch.testing.assert_close(features["res5"], nn.functional.max_pool2d(features["res4"], 2))


def test_feature_maps_can_be_normalised():
    backbone = TimmBackbone("convnext_atto", THREE, norm_features=True)

    for x in backbone(torch.randn(1, 3, 64, 64)).values():
        torch.testing.assert_close(x.mean(dim=1), torch.zeros(1, *x.shape[2:]), atol=1e-4, rtol=0)


def test_weights_come_from_a_file_without_network(resnet_file, tmp_path):
    weights = torch.load(resnet_file)

    backbone = build_backbone(backbone_config("resnet10t", FILE=resnet_file))

    ours = backbone.bottom_up.model.state_dict()
    assert len(ours) > 50 and all(torch.equal(value, weights[name]) for name, value in ours.items())

    message = refused(build_backbone, backbone_config("resnet14t", FILE=resnet_file))
    assert message.startswith(f"MODEL.TIMM.FILE {resnet_file}: does not give the weights of resnet14t (Missing key(s)")
    message = refused(build_backbone, backbone_config("resnet10t", FILE=str(tmp_path / "none.safetensors")))
    assert "none.safetensors" in message


def test_weights_of_the_config_replace_those_of_timm(resnet_file):
    """A trained model is used where timm's weights are not."""
    cfg = backbone_config("resnet10t", PRETRAINED=True, FILE="nowhere.pth")
    cfg.MODEL.WEIGHTS = "trained.pth"

    assert build_backbone(cfg)


def test_without_network_the_error_says_which_file_to_fetch_and_where_to_name_it(monkeypatch):
    def unreachable(*args, **kwargs):
        raise ConnectionError("no route to host\nand so on")

    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", unreachable)

    message = refused(build_backbone, backbone_config("resnet10t", PRETRAINED=True))

    assert message == (
        "MODEL.TIMM.PRETRAINED: the weights of resnet10t cannot be downloaded (no route to host); fetch the file "
        "model.safetensors of https://huggingface.co/timm/resnet10t.c3_in1k where there is a network, and give its "
        "path: MODEL.TIMM.FILE path/to/file"
    )
    message = refused(build_backbone, backbone_config("resnet10t.nobody", PRETRAINED=True))
    assert "no model 'resnet10t.nobody'" in message


@pytest.mark.slow
def test_imagenet_weights_need_not_have_the_layers_that_only_detectors_have(tmp_path):
    cfg = backbone_config("convnext_atto", NORM_FEATURES=True)
    cfg.MODEL.ATSS.NUM_CLASSES = 3
    model, weights = build_model(cfg), timm.create_model("convnext_atto").state_dict()
    torch.save({f"backbone.bottom_up.model.{name}": value for name, value in weights.items()}, tmp_path / "w.pth")

    Checkpointer(model, needed=is_pretrained).load(str(tmp_path / "w.pth"))

    ours = model.backbone.bottom_up.model.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in ours.items())


@pytest.mark.parametrize(
    "freeze_at, frozen",
    [
        (0, set()),
        (1, {"conv1", "bn1"}),
        (2, {"conv1", "bn1", "layer1"}),
        (5, {"conv1", "bn1", "layer1", "layer2", "layer3", "layer4"}),
    ],
)
def test_stages_are_frozen_with_their_norms(freeze_at, frozen):
    backbone = TimmBackbone("resnet10t", THREE, freeze_at=freeze_at).train()
    before = {name: value.clone() for name, value in backbone.named_buffers()}

    backbone(torch.randn(2, 3, 64, 64))

    parts = {"conv1", "bn1", "layer1", "layer2", "layer3", "layer4"}
    assert tops(name for name, p in backbone.named_parameters() if p.requires_grad) == parts - frozen
    moved = (name for name, value in backbone.named_buffers() if not torch.equal(value, before[name]))
    assert tops(moved) == parts - frozen, "statistics of batch normalizations"


def tops(names):
    """The parts of the model that names of parameters begin with, behind `model.`."""
    return {name.split(".")[1] for name in names}


@pytest.mark.parametrize("name", ["swin_tiny_patch4_window7_224", "mobilenetv3_small_050", "vit_tiny_patch16_224"])
def test_the_stem_is_in_front_of_the_first_stage(name):
    backbone = TimmBackbone(name, THREE, freeze_at=1)

    assert tops(n for n, p in backbone.named_parameters() if not p.requires_grad) == {
        "swin_tiny_patch4_window7_224": {"patch_embed"},
        "mobilenetv3_small_050": {"conv_stem"},
        "vit_tiny_patch16_224": {"patch_embed", "cls_token", "pos_embed"},
    }[name]  # fmt: skip


def test_all_norms_can_be_frozen():
    backbone = TimmBackbone("mobilenetv3_small_050", THREE, freeze_norm=True).train()
    before = {name: value.clone() for name, value in backbone.named_buffers()}

    backbone(torch.randn(2, 3, 64, 64))

    assert all(torch.equal(value, before[name]) for name, value in backbone.named_buffers())
    assert not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in backbone.modules())
    assert all(p.requires_grad for p in backbone.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["convnext_atto", "mobilenetv3_small_050"])
def test_checkpointed_activations_change_no_gradient(name):
    torch.manual_seed(0)
    plain = TimmBackbone(name, THREE, freeze_norm=True)
    saving = TimmBackbone(name, THREE, freeze_norm=True, activation_checkpointing=True)
    saving.load_state_dict(plain.state_dict())
    image = torch.randn(1, 3, 64, 64)

    for backbone in (plain, saving):
        sum(x.square().mean() for x in backbone.train()(image).values()).backward()

    for x, y in zip(plain.parameters(), saving.parameters(), strict=True):
        torch.testing.assert_close(x.grad, y.grad)


def test_paths_are_dropped_in_training_alone():
    backbone, image = TimmBackbone("convnext_atto", THREE, drop_path_rate=0.9), torch.randn(1, 3, 64, 64)

    assert not torch.equal(backbone.train()(image)["res5"], backbone(image)["res5"])
    assert torch.equal(backbone.eval()(image)["res5"], backbone(image)["res5"])


# Learning rates and weight decays.


def rates(name, settings, part="backbone.bottom_up."):
    """Learning rate and weight decay of each parameter of the backbone, by its name."""
    cfg = backbone_config(name)
    cfg.MODEL.ATSS.NUM_CLASSES = 3
    cfg.merge_from_list(pairs({"SOLVER.OPTIMIZER": "AdamW", "SOLVER.BIAS_LR_FACTOR": 1.0, **settings}))
    model = build_model(cfg)
    groups = {id(p): group for group in build_optimizer(cfg, model).param_groups for p in group["params"]}
    return {
        name.removeprefix(part): (groups[id(p)]["lr"], groups[id(p)]["weight_decay"])
        for name, p in model.named_parameters()
        if name.startswith(part)
    }


@pytest.mark.parametrize("backbone", ["build_timm_fpn_backbone", "build_atss_small_resnet_fpn_backbone"])
def test_the_rate_of_the_backbone_has_a_factor_and_that_of_the_pyramid_has_not(backbone):
    resnet = {"MODEL.RESNETS.DEPTH": 10, "MODEL.RESNETS.RES2_OUT_CHANNELS": 16, "MODEL.RESNETS.NORM": "BN"}
    settings = {"MODEL.BACKBONE.NAME": backbone, "SOLVER.BASE_LR": 1.0, "SOLVER.BACKBONE_MULTIPLIER": 0.1, **resnet}

    assert {rate for rate, _ in rates("resnet10t", settings).values()} == {0.1}
    assert {rate for rate, _ in rates("resnet10t", settings, "backbone.fpn").values()} == {1.0}


def test_a_factor_without_such_a_backbone_is_refused():
    message = refused(with_backbone_rates, [], nn.Linear(2, 2), multiplier=0.1, layer_decay=1.0)

    assert message.startswith("SOLVER.BACKBONE_MULTIPLIER")


def test_rates_fall_layer_by_layer_towards_the_image():
    """A plain transformer of twelve blocks: 13 layers with the embedding, and the pyramid is none of them."""
    found = rates("vit_tiny_patch16_224", {"SOLVER.BASE_LR": 1.0, "SOLVER.LAYER_DECAY": 0.5})

    assert found["model.blocks.11.mlp.fc1.weight"][0] == 0.5
    assert found["model.blocks.0.mlp.fc1.weight"][0] == 0.5**12
    assert found["model.patch_embed.proj.weight"][0] == found["model.pos_embed"][0] == 0.5**13
    assert found["pyramid.res3.weight"][0] == 1.0


@pytest.mark.slow
def test_position_tables_and_norms_do_not_decay():
    settings = {"SOLVER.WEIGHT_DECAY": 0.05, "SOLVER.WEIGHT_DECAY_NORM": 0.0, "SOLVER.WEIGHT_DECAY_BIAS": 0.0}
    found = rates("swin_tiny_patch4_window7_224", settings)

    assert {decay for _, decay in found.values()} == {0.0, 0.05}
    for name, (_, decay) in found.items():
        free = "relative_position_bias_table" in name or "norm" in name or name.endswith("bias")
        assert decay == (0.0 if free else 0.05), name


def test_rates_of_layers_are_for_timm():
    message = refused(load_config, DEMO_CONFIG, ["SOLVER.LAYER_DECAY", "0.9"])

    assert message.startswith("SOLVER.LAYER_DECAY") and "build_timm_fpn_backbone" in message


# The images that the model has been trained with.


def test_statistics_and_order_of_the_channels_are_those_of_the_model(config):
    cfg = config("vit_tiny_patch16_224")

    assert (cfg.INPUT.FORMAT, cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD) == ("RGB", [127.5] * 3, [127.5] * 3)


def test_given_statistics_are_kept(config):
    mean = {"MODEL.PIXEL_MEAN": [1.0, 2.0, 3.0]}

    cfg = config("resnet10t", mean)
    assert cfg.MODEL.PIXEL_MEAN == [1.0, 2.0, 3.0] and cfg.MODEL.PIXEL_STD == [58.395, 57.12, 57.375]
    cfg = config("resnet10t", {"INPUT.FORMAT": "BGR"})
    assert cfg.INPUT.FORMAT == "BGR" and cfg.MODEL.PIXEL_MEAN == [103.53, 116.28, 123.675]


def test_statistics_in_a_file_belong_to_the_model_that_it_or_its_base_names(tmp_path, shapes):
    (tmp_path / "base.yaml").write_text(f"_BASE_: {DEMO_CONFIG}\nMODEL: {{PIXEL_MEAN: [1.0, 1.0, 1.0]}}\n")
    (tmp_path / "named.yaml").write_text(
        "_BASE_: base.yaml\n"
        "MODEL: {BACKBONE: {NAME: build_timm_fpn_backbone}, TIMM: {NAME: resnet10t}, PIXEL_STD: [2.0, 2.0, 2.0]}\n"
    )
    (tmp_path / "top.yaml").write_text("_BASE_: named.yaml\nINPUT: {FORMAT: BGR}\n")

    cfg = load_config(str(tmp_path / "top.yaml"), pairs(shapes))
    assert cfg.INPUT.FORMAT == "BGR" and cfg.MODEL.PIXEL_STD == [2.0, 2.0, 2.0]
    assert cfg.MODEL.PIXEL_MEAN == [103.53, 116.28, 123.675], "not those of the base, which are of another backbone"

    (tmp_path / "run.yaml").write_text(cfg.dump())
    again = load_config(str(tmp_path / "run.yaml"))
    assert (again.INPUT.FORMAT, again.MODEL.PIXEL_MEAN) == (cfg.INPUT.FORMAT, cfg.MODEL.PIXEL_MEAN)
    other = load_config(str(tmp_path / "run.yaml"), ["MODEL.TIMM.NAME", "vit_tiny_patch16_224"])
    assert (other.INPUT.FORMAT, other.MODEL.PIXEL_STD) == ("RGB", [127.5] * 3)


# Bad input.


@pytest.mark.parametrize(
    "name, nearest",
    [
        ("resnet_18", "resnet18"),
        ("convnext_tiny.fb_in22", "convnext_tiny.fb_in22k"),
        ("swin_tiny_patch4", "swin_tiny_patch4_window7_224"),
        ("", ""),
    ],
)
def test_a_name_that_does_not_exist_gets_the_three_nearest(config, name, nearest):
    message = refused(config, name)

    assert message.startswith(f"MODEL.TIMM.NAME: timm has no model {name!r}; the nearest are ")
    names = message.split(" are ")[1].split(", ")
    assert len(names) == 3 and nearest in message


@pytest.mark.parametrize(
    "name, keys, expected",
    [
        (
            "convmixer_768_32",
            {},
            "MODEL.TIMM.NAME: convmixer_768_32 gives no feature maps of strides 4 to 32, but of 7",
        ),
        ("cspresnet50", {"ACTIVATION_CHECKPOINTING": True}, "MODEL.TIMM.ACTIVATION_CHECKPOINTING: cspresnet50"),
        ("vgg11", {"DROP_PATH_RATE": 0.1}, "MODEL.TIMM.DROP_PATH_RATE: vgg11 has no paths to drop"),
        ("levit_128s", {}, "levit_128s does not take images of any size"),
        pytest.param("inception_v3", {}, "feature maps of inception_v3 have no fixed stride", marks=pytest.mark.slow),
    ],
)
def test_a_model_that_does_not_fit_is_named(name, keys, expected):
    assert expected in refused(build_backbone, backbone_config(name, **keys))


def test_a_model_without_feature_maps_is_named():
    assert refused(stages_of, "tabular", nn.Linear(2, 2)) == (
        "MODEL.TIMM.NAME: tabular gives no feature maps; choose another model"
    )


def test_feature_maps_that_the_model_lacks_are_named():
    message = refused(TimmBackbone, "resnet10t", ["res4", "res6"])

    assert message == "MODEL.FPN.IN_FEATURES: resnet10t has no res6; its feature maps are res2, res3, res4, res5"


@pytest.mark.parametrize("name, known", [("resnet10t", "0, 1, 2, 3, 4, 5"), ("vit_tiny_patch16_224", "0, 1")])
def test_stages_that_the_model_lacks_are_named(name, known):
    message = refused(TimmBackbone, name, THREE, freeze_at=6)

    assert message == f"MODEL.BACKBONE.FREEZE_AT: expected one of {known}, got 6"


def test_a_model_whose_stages_are_not_known_is_named():
    message = refused(TimmBackbone, "twins_svt_small", THREE, freeze_at=1)

    assert message == "MODEL.BACKBONE.FREEZE_AT: timm does not tell the stages of MODEL.TIMM.NAME; set it to 0"


def test_without_timm_the_error_says_how_to_install_it(config, monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)

    expected = "MODEL.BACKBONE.NAME build_timm_fpn_backbone needs timm: pip install -e .[timm]"
    assert refused(config, "resnet10t") == expected
    assert refused(build_backbone, backbone_config("resnet10t"), ShapeSpec(channels=3)) == expected
