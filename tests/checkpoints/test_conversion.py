"""Checkpoints of other codebases: every key is mapped, values keep their meaning, and other models are refused."""

import pickle
import re
import sys
from enum import Enum
from types import SimpleNamespace

import pytest
import torch
from detectron2.modeling import build_model

from atss.checkpoints import Checkpointer, is_pretrained
from atss.checkpoints.conversion import EPS, convert, shapes_of
from atss.checkpoints.formats import BOTTOM_UP
from atss.commands import convert as convert_command
from atss.config import load_config
from atss.errors import InputError
from tests.checkpoints import layouts
from tests.helpers import error_line, file_size_limit, pairs, run_forked

pytestmark = pytest.mark.slow

BASE = "configs/Base-ATSS.yaml"
CPU = ["MODEL.DEVICE", "cpu"]
# Fewer channels in pyramid and head: files of a fifth of the size.
SMALL = layouts.Architecture(channels=64)
DEFORMABLE = layouts.Architecture(deformable_stages=(2, 3, 4), deformable_tower=True, channels=64)
SMALL_CFG = [*CPU, "MODEL.FPN.OUT_CHANNELS", "64"]
SMALL_DYHEAD = layouts.Architecture(channels=64, blocks=2)
SMALL_DYHEAD_1X1 = layouts.Architecture(channels=64, blocks=2, kernel=1)


def base(opts=CPU):
    return load_config(BASE, list(opts), read_datasets=False)


def saved(tmp_path, content, name="theirs.pth"):
    path = tmp_path / name
    if name.endswith(".pkl"):
        path.write_bytes(pickle.dumps(content, protocol=2))
    else:
        torch.save(content, path)
    return path


def check_config(cfg, name, conventions, **expected):
    """It has the architecture of the config of the model zoo, except for `expected`, and these conventions."""
    zoo = load_config(f"configs/{name}.yaml", CPU)
    resnets, theirs = cfg.MODEL.RESNETS, zoo.MODEL.RESNETS
    for key in ("DEPTH", "NUM_GROUPS", "WIDTH_PER_GROUP", "STRIDE_IN_1X1", "DEFORM_ON_PER_STAGE", "DEFORM_MODULATED"):
        assert resnets[key] == expected.get(key, theirs[key]), key
    atss, images = cfg.MODEL.ATSS, (cfg.INPUT.RESIZE_LIKE, cfg.INPUT.FORMAT, cfg.MODEL.PIXEL_STD)
    for key in ("NUM_CONVS", "USE_DCN_IN_TOWER", "NUM_CLASSES"):
        assert atss[key] == zoo.MODEL.ATSS[key], key
    scores = (atss.TOPK_BY_CENTERNESS, atss.SCORE_ROOT)
    assert (atss.PIXEL_EXTENT, atss.ANCHOR_OFFSET, atss.RELU_BEFORE_P7, *scores, *images) == conventions


@pytest.mark.parametrize("name", layouts.PAPER)
def test_every_key_of_the_papers_models_is_mapped(tmp_path, name):
    content = layouts.paper(layouts.PAPER[name], light=True)

    found = convert(saved(tmp_path, content), base())

    assert set(found.mapped) | set(found.left) == {key.removeprefix("module.") for key in content["model"]}
    assert found.left == [f"rpn.anchor_generator.cell_anchors.{i}" for i in range(5)] and found.filled == []
    assert set(found.weights) == set(shapes_of(found.cfg))
    check_config(found.cfg, name, (1, 0.5, True, True, True, "maskrcnn-benchmark", "BGR", [1.0, 1.0, 1.0]))


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("name", layouts.MMDETECTION)
def test_every_key_of_mmdetections_models_is_mapped(tmp_path, name, version):
    content = layouts.mmdetection(layouts.MMDETECTION[name], version=version, light=True)

    found = convert(saved(tmp_path, content), base())

    assert set(found.mapped) | set(found.left) == set(content["state_dict"])
    assert all(key.endswith("num_batches_tracked") for key in found.left)
    assert found.filled == [f"head.{t}_tower.{i}.bias" for t in ("box", "class") for i in range(4)]
    assert all((found.weights[key] == 0).all() for key in found.filled)
    assert set(found.weights) == set(shapes_of(found.cfg))
    conventions = (0, 0.0, False, False, False, "mmdetection", "RGB", [58.395, 57.12, 57.375])
    check_config(found.cfg, name, conventions, STRIDE_IN_1X1=False)


DYNAMIC_HEAD = (0, 0.5, True, True, False, "detectron2", "BGR", [1.0, 1.0, 1.0])
OF_MMDETECTION = (0, 0.0, False, False, False, "mmdetection", "RGB", [58.395, 57.12, 57.375])
REPRODUCED = (0, 0.5, False, False, False, "detectron2", "BGR", [1.0, 1.0, 1.0])


@pytest.mark.parametrize(
    "layout, a, conventions, multiple, stride_in_1x1",
    [
        (layouts.dynamichead, layouts.DYHEAD_1X1, DYNAMIC_HEAD, 128, True),
        (layouts.mmdetection, layouts.DYHEAD, OF_MMDETECTION, 1, False),
        (layouts.mmdetection, layouts.DYHEAD_1X1, REPRODUCED, 128, True),
    ],
    ids=["DynamicHead", "mmdetection", "mmdetection's reproduction"],
)
def test_every_key_of_a_dynamic_head_is_mapped(tmp_path, layout, a, conventions, multiple, stride_in_1x1):
    """1x1 predictors tell mmdetection's models that follow DynamicHead from its own."""
    content = layout(a, light=True)

    found = convert(saved(tmp_path, content), base())

    weights = content.get("model") or content["state_dict"]
    assert set(found.mapped) | set(found.left) == set(weights)
    assert all(key.endswith("num_batches_tracked") for key in found.left)
    assert set(found.weights) == set(shapes_of(found.cfg))
    biases = [f"neck.blocks.{i}.{name}.bias" for i in range(6) for name in ("coarser", "finer", "same")]
    assert found.filled == ([] if layout is layouts.dynamichead else biases)
    check_config(found.cfg, "atss_R_50_FPN_dyhead_1x", conventions, STRIDE_IN_1X1=stride_in_1x1)
    atss, theirs = found.cfg.MODEL.ATSS, load_config("configs/atss_R_50_FPN_dyhead_1x.yaml", CPU).MODEL.ATSS
    assert (multiple, a.kernel) == (atss.SIZE_DIVISIBILITY, atss.PREDICTOR_KERNEL)
    assert atss.DYHEAD_BLOCKS == theirs.DYHEAD_BLOCKS == 6
    assert atss.CLIP_BEFORE_NMS is (layout is layouts.mmdetection)


@pytest.mark.parametrize(
    "layout, a, name, order_of_scores",
    [
        (layouts.dynamichead, layouts.SWIN_T, "swin_T_FPN_dyhead_2x", True),
        (layouts.mmdetection, layouts.SWIN_L, "swin_L_FPN_dyhead_2x", False),
    ],
    ids=["DynamicHead", "mmdetection"],
)
def test_every_key_of_a_swin_transformer_is_mapped(tmp_path, layout, a, name, order_of_scores):
    content, zoo = layout(a, light=True), load_config(f"configs/atss_{name}.yaml", CPU)

    found = convert(saved(tmp_path, content), base())

    assert set(found.mapped) | set(found.left) == set(content.get("model") or content["state_dict"])
    assert all(key.endswith("relative_position_index") for key in found.left)
    assert set(found.weights) == set(shapes_of(found.cfg))
    cfg = found.cfg
    assert zoo.MODEL.TIMM.NAME.startswith(f"{cfg.MODEL.TIMM.NAME}.") and cfg.MODEL.TIMM.NORM_FEATURES
    for key in (
        "RELU_BEFORE_P7",
        "SIZE_DIVISIBILITY",
        "DYHEAD_BLOCKS",
        "NUM_CONVS",
        "PREDICTOR_KERNEL",
        "ANCHOR_OFFSET",
    ):
        assert cfg.MODEL.ATSS[key] == zoo.MODEL.ATSS[key], key
    for key in ("FORMAT", "MIN_SIZE_TEST", "MAX_SIZE_TEST", "RESIZE_LIKE"):
        assert cfg.INPUT[key] == zoo.INPUT[key], key
    assert (cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD) == (zoo.MODEL.PIXEL_MEAN, zoo.MODEL.PIXEL_STD)
    assert cfg.MODEL.ATSS.TOPK_BY_CENTERNESS is order_of_scores and cfg.MODEL.ATSS.SCORE_ROOT is False
    convert(saved(tmp_path, content), zoo, own_model=True)


def test_inputs_of_mergings_change_their_order(tmp_path):
    """mmdetection: channel, row, column; timm, as the original: column, row, channel; and a stage later."""
    content = layouts.mmdetection(layouts.Architecture(channels=64, blocks=1, kernel=1, swin=(96, 6, 3, 7)))
    theirs = content["state_dict"]

    ours = convert(saved(tmp_path, content), base()).weights

    for name, ending in (("norm.bias", ()), ("reduction.weight", (7,))):
        before = theirs[f"backbone.stages.1.downsample.{name}"]
        after = ours[f"{BOTTOM_UP}model.layers.2.downsample.{name}"]
        for channel, row, column in ((0, 0, 0), (5, 0, 1), (191, 1, 0), (100, 1, 1)):
            place = (*ending, (2 * column + row) * 192 + channel)
            assert after[place] == before[(*ending, 4 * channel + 2 * row + column)]
    expected = {
        "model.patch_embed.proj.bias": "patch_embed.projection.bias",
        "model.layers.2.blocks.5.attn.qkv.weight": "stages.2.blocks.5.attn.w_msa.qkv.weight",
        "model.layers.3.blocks.1.mlp.fc1.bias": "stages.3.blocks.1.ffn.layers.0.0.bias",
        "norms.res3.weight": "norm1.weight",
    }
    assert all(torch.equal(ours[BOTTOM_UP + a], theirs[f"backbone.{b}"]) for a, b in expected.items())


@pytest.mark.parametrize("version", [2, 3])
def test_every_key_of_mmdetections_gfl_is_mapped(tmp_path, version):
    content = layouts.mmdetection(layouts.Architecture(), version=version, light=True, gfl=True)

    found = convert(saved(tmp_path, content), base())

    assert set(found.mapped) | set(found.left) == set(content["state_dict"])
    left = {key for key in found.left if not key.endswith("num_batches_tracked")}
    assert left == {"bbox_head.integral.project"}
    assert found.filled == [f"head.{t}_tower.{i}.bias" for t in ("box", "class") for i in range(4)]
    assert set(found.weights) == set(shapes_of(found.cfg))
    conventions = (0, 0.0, False, False, False, "mmdetection", "RGB", [58.395, 57.12, 57.375])
    check_config(found.cfg, "atss_R_50_FPN_gfl_1x", conventions)
    atss, zoo = found.cfg.MODEL.ATSS, load_config("configs/atss_R_50_FPN_gfl_1x.yaml", CPU).MODEL.ATSS
    for key in ("CLASS_LOSS", "CENTERNESS", "BOX_CODING", "MAX_DISTANCE"):
        assert atss[key] == zoo[key], key


def test_gfl_and_atss_do_not_fit_each_others_config(tmp_path):
    of_gfl, of_atss = (layouts.mmdetection(SMALL, light=True, gfl=gfl) for gfl in (True, False))
    configs = [load_config(f"configs/atss_R_50_FPN_{name}.yaml", SMALL_CFG) for name in ("gfl_1x", "1x")]

    message = refused(saved(tmp_path, of_gfl), configs[1], own_model=True, own_datasets=True)
    assert "a model with MODEL.ATSS.CLASS_LOSS quality_focal, but the config has focal" in message
    assert "has no place for head.centerness" in refused(saved(tmp_path, of_atss), configs[0], own_model=True)
    convert(saved(tmp_path, of_gfl), configs[0], own_model=True, own_datasets=True)


@pytest.mark.parametrize("number", [4, 66])
def test_distributions_of_an_impossible_size_are_refused(tmp_path, number):
    content = layouts.mmdetection(SMALL, light=True, gfl=True)
    content["state_dict"]["bbox_head.gfl_reg.weight"] = torch.zeros(number, 64, 3, 3)

    assert f"{number} numbers for the distributions of four distances" in refused(saved(tmp_path, content))


X_101 = layouts.PAPER["atss_X_101_64x4d_FPN_2x"]


@pytest.mark.parametrize(
    "a, version, name",
    [(layouts.MOBILENETV2, v, "atss_mobilenetv2_FPN") for v in (0, 1, 2)]
    + [(X_101, v, "atss_X_101_64x4d_FPN_2x") for v in (1, 2)],
)
def test_every_key_of_openvino_training_extensions_is_mapped(tmp_path, a, version, name):
    """What it writes around the weights tells its ResNeXt from mmdetection's."""
    content = layouts.otx(a, version, light=True)

    found = convert(saved(tmp_path, content), base())

    weights = content["model"]["state_dict"] if version == 1 else content["state_dict"]
    prefix = "model." if version == 1 else ""
    assert set(found.mapped) | set(found.left) == {prefix + key for key in weights}
    assert all(key.endswith("num_batches_tracked") for key in found.left)
    biases = [f"head.{t}_tower.{i}.bias" for t in ("box", "class") for i in range(4)]
    assert [key for key in found.filled if not key.endswith("num_batches_tracked")] == biases
    assert set(found.weights) == set(shapes_of(found.cfg))
    conventions = (0, 0.0, True, False, False, "mmdetection", "RGB", [255.0, 255.0, 255.0])
    check_config(found.cfg, name, conventions, STRIDE_IN_1X1=False)
    assert (a.channels, [0.0, 0.0, 0.0]) == (found.cfg.MODEL.FPN.OUT_CHANNELS, found.cfg.MODEL.PIXEL_MEAN)
    assert (0 if a.mobile else 2) == found.cfg.MODEL.BACKBONE.FREEZE_AT
    assert found.cfg.MODEL.ATSS.CLASS_NAMES[1] == ("thing 1" if version else "bicycle")


PAPER_KEYS = {
    "backbone.bottom_up.stem.conv1.weight": "backbone.body.stem.conv1.weight",
    "backbone.bottom_up.res2.0.shortcut.norm.bias": "backbone.body.layer1.0.downsample.1.bias",
    "backbone.bottom_up.res4.5.conv3.weight": "backbone.body.layer3.5.conv3.weight",
    "backbone.bottom_up.res3.1.conv2.weight": "backbone.body.layer2.1.conv2.conv.weight",
    "backbone.bottom_up.res3.1.conv2_offset.bias": "backbone.body.layer2.1.conv2.offset.bias",
    "backbone.fpn_lateral3.weight": "backbone.fpn.fpn_inner2.weight",
    "backbone.fpn_output5.bias": "backbone.fpn.fpn_layer4.bias",
    "backbone.top_block.p7.weight": "backbone.fpn.top_blocks.p7.weight",
    "head.class_tower.2.weight": "rpn.head.cls_tower.6.weight",
    "head.box_tower.2.norm.weight": "rpn.head.bbox_tower.7.weight",
    "head.box_tower.3.offset.weight": "rpn.head.bbox_tower.9.offset.weight",
    "head.class_tower.3.conv.bias": "rpn.head.cls_tower.9.conv.bias",
    "head.class_tower.3.norm.bias": "rpn.head.cls_tower.10.bias",
    "head.class_logits.bias": "rpn.head.cls_logits.bias",
    "head.box_deltas.weight": "rpn.head.bbox_pred.weight",
}
MMDETECTION_KEYS = {
    "backbone.fpn_lateral5.bias": "neck.lateral_convs.2.conv.bias",
    "backbone.fpn_output3.weight": "neck.fpn_convs.0.conv.weight",
    "backbone.top_block.p6.weight": "neck.fpn_convs.3.conv.weight",
    "head.class_tower.1.weight": "bbox_head.cls_convs.1.conv.weight",
    "head.box_tower.3.norm.bias": "bbox_head.reg_convs.3.gn.bias",
    "head.centerness.bias": "bbox_head.atss_centerness.bias",
}
MMDETECTION_DYHEAD_KEYS = {
    "backbone.fpn_lateral5.bias": "neck.0.lateral_convs.2.conv.bias",
    "backbone.top_block.p7.weight": "neck.0.fpn_convs.4.conv.weight",
    "neck.blocks.0.offset.weight": "neck.1.dyhead_blocks.0.spatial_conv_offset.weight",
    "neck.blocks.1.coarser.weight": "neck.1.dyhead_blocks.1.spatial_conv_high.conv.weight",
    "neck.blocks.1.same.norm.bias": "neck.1.dyhead_blocks.1.spatial_conv_mid.norm.bias",
    "neck.blocks.0.finer.weight": "neck.1.dyhead_blocks.0.spatial_conv_low.conv.weight",
    "neck.blocks.0.scale.weight": "neck.1.dyhead_blocks.0.scale_attn_module.1.weight",
    "neck.blocks.1.relu.squeeze.bias": "neck.1.dyhead_blocks.1.task_attn_module.conv1.conv.bias",
    "neck.blocks.1.relu.expand.weight": "neck.1.dyhead_blocks.1.task_attn_module.conv2.conv.weight",
}
DYNAMIC_HEAD_KEYS = {
    "backbone.bottom_up.res3.1.conv2.norm.bias": "backbone.backbone.bottom_up.res3.1.conv2.norm.bias",
    "backbone.top_block.p6.bias": "backbone.backbone.top_block.p6.bias",
    "neck.blocks.0.offset.bias": "backbone.dyhead_tower.0.offset.bias",
    "neck.blocks.0.coarser.weight": "backbone.dyhead_tower.0.DyConv.0.conv.weight",
    "neck.blocks.1.same.norm.weight": "backbone.dyhead_tower.1.DyConv.1.bn.weight",
    "neck.blocks.1.finer.bias": "backbone.dyhead_tower.1.DyConv.2.conv.bias",
    "neck.blocks.1.scale.weight": "backbone.dyhead_tower.1.AttnConv.1.weight",
    "neck.blocks.1.relu.squeeze.weight": "backbone.dyhead_tower.1.relu.fc.0.weight",
    "neck.blocks.0.relu.expand.bias": "backbone.dyhead_tower.0.relu.fc.2.bias",
    "head.class_logits.weight": "head.cls_logits.weight",
    "head.centerness.weight": "head.centerness.weight",
}


def test_a_published_resnext_comes_with_advice(tmp_path, capsys):
    """Nothing in the file of OpenVINO Training Extensions tells it from one of mmdetection."""
    path = saved(tmp_path, layouts.otx(layouts.Architecture(50, 32, 4, channels=64), version=0, light=True))
    parser, output = convert_command.get_parser(), tmp_path / "converted"

    convert_command.main(parser.parse_args([str(path), "--output", str(output)]))

    said = capsys.readouterr().out
    assert "of mmdetection; " in said and "OpenVINO" in said
    advice = re.search(r"add (MODEL.* \[255,255,255\])", said)[1].split()
    cfg = convert(path, base([*CPU, *advice]), keep=advice[::2]).cfg
    assert cfg.MODEL.ATSS.RELU_BEFORE_P7
    assert (cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD) == ([0, 0, 0], [255, 255, 255])


MOBILENET_KEYS = {
    "stem.0.0.weight": "init_block.conv.weight",
    "stem.0.1.running_var": "init_block.bn.running_var",
    "stem.1.conv.0.0.weight": "stage1.unit1.conv1.conv.weight",
    "stem.1.conv.2.weight": "stage1.unit1.conv3.conv.weight",
    "res2.0.conv.1.1.bias": "stage2.unit1.conv2.bn.bias",
    "res4.6.conv.1.0.weight": "stage4.unit7.conv2.conv.weight",
    "res5.3.conv.3.running_mean": "stage5.unit4.conv3.bn.running_mean",
}


def test_values_of_a_mobilenet_get_their_keys(tmp_path):
    content = layouts.otx(layouts.MOBILENETV2)

    ours = convert(saved(tmp_path, content), base()).weights

    for key, other in MOBILENET_KEYS.items():
        theirs = content["state_dict"][f"model.backbone.features.{other}"]
        assert torch.equal(ours[BOTTOM_UP + key], theirs), key
    for key, other in MMDETECTION_KEYS.items():
        assert torch.equal(ours[key], content["state_dict"][f"model.{other}"]), key


def test_settings_that_are_no_plain_data_are_not_read(tmp_path, monkeypatch):
    """OpenVINO Training Extensions writes an enum among them, which is not imported."""

    class OTXTaskType(str, Enum):
        DETECTION = "DETECTION"

    OTXTaskType.__module__, OTXTaskType.__qualname__ = "otx.types.task", "OTXTaskType"
    content = layouts.otx(layouts.MOBILENETV2, classes=3, light=True)
    content["hyper_parameters"]["task"] = OTXTaskType.DETECTION
    with monkeypatch.context() as patch:
        for name in ("otx", "otx.types", "otx.types.task"):
            patch.setitem(sys.modules, name, SimpleNamespace(OTXTaskType=OTXTaskType))
        path = saved(tmp_path, content)

    assert convert(path, base()).cfg.MODEL.ATSS.CLASS_NAMES == ["thing 0", "thing 1", "thing 2"]


# Detectron2 adds its epsilon to the variance, the paper's code none.
@pytest.mark.parametrize(
    "layout, a, keys, head, body, eps",
    [
        (layouts.paper, DEFORMABLE, PAPER_KEYS, "rpn.head", "backbone.body", 0),
        (layouts.mmdetection, SMALL, MMDETECTION_KEYS, "bbox_head", "backbone", EPS),
        (layouts.mmdetection, SMALL_DYHEAD, MMDETECTION_DYHEAD_KEYS, "bbox_head", "backbone", EPS),
        (layouts.dynamichead, SMALL_DYHEAD_1X1, DYNAMIC_HEAD_KEYS, "head", "backbone.backbone.bottom_up", EPS),
    ],
    ids=["paper", "mmdetection", "mmdetection's dynamic head", "DynamicHead"],
)
def test_values_get_their_keys(tmp_path, layout, a, keys, head, body, eps):
    content = layout(a)

    ours = convert(saved(tmp_path, content), base()).weights

    theirs = {k.removeprefix("module."): v for k, v in (content.get("model") or content["state_dict"]).items()}
    for key, other in keys.items():
        assert torch.equal(ours[key], theirs[other].view_as(ours[key])), key
    assert ours["head.scales"].tolist() == [theirs[f"{head}.scales.{i}.scale"].item() for i in range(5)]
    last = "res5.2.conv3.norm" if "bottom_up" in body else "layer4.2.bn3"
    expected = theirs[f"{body}.{last}.running_var"] + eps - EPS
    torch.testing.assert_close(ours["backbone.bottom_up.res5.2.conv3.norm.running_var"], expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("a", [layouts.Architecture(), layouts.Architecture(101, 32, 8)], ids=["R-50", "X-101-32x8d"])
@pytest.mark.parametrize("origin", ["torchvision", "caffe2"])
def test_imagenet_weights_become_a_backbone(tmp_path, origin, a):
    path = saved(tmp_path, getattr(layouts, origin)(a), "r.pth" if origin == "torchvision" else "r.pkl")

    found = convert(path, base(), allow_pickle=True)

    assert all(key.startswith(BOTTOM_UP) for key in found.weights)
    assert (a.depth, a.groups) == (found.cfg.MODEL.RESNETS.DEPTH, found.cfg.MODEL.RESNETS.NUM_GROUPS)
    assert (origin == "caffe2" and a.groups == 1) == found.cfg.MODEL.RESNETS.STRIDE_IN_1X1
    assert ("RGB" if origin == "torchvision" else "BGR") == found.cfg.INPUT.FORMAT
    path = saved(tmp_path, {"model": found.weights}, "ours.pth")
    Checkpointer(build_model(found.cfg), needed=is_pretrained).load(str(path))


@pytest.mark.parametrize("head", ["retinanet", "fcos"])
def test_detectron2s_detectors_give_backbone_and_pyramid_to_train_from(tmp_path, head):
    content = layouts.detectron2(SMALL, head)
    path = saved(tmp_path, content)

    found = convert(path, base())

    assert set(found.mapped) | set(found.left) == set(content["model"])
    assert all(torch.equal(values, content["model"][key]) for key, values in found.weights.items())
    missing = set(shapes_of(found.cfg)) - set(found.weights)
    assert {key.partition(".")[0] for key in missing} == ({"head"} if head == "fcos" else {"head", "backbone"})
    assert all(key.startswith(("head.", "backbone.top_block.")) for key in missing)
    assert found.cfg.MODEL.FPN.OUT_CHANNELS == 64 and found.cfg.MODEL.RESNETS.STRIDE_IN_1X1
    assert found.cfg.MODEL.PIXEL_MEAN == [103.53, 116.28, 123.675]
    torch.save({"model": found.weights}, tmp_path / "ours.pth")
    Checkpointer(build_model(found.cfg), needed=is_pretrained).load(str(tmp_path / "ours.pth"))
    with pytest.raises(InputError, match=r"a checkpoint of Detectron2's (RetinaNet|FCOS); .*atss convert"):
        Checkpointer(build_model(found.cfg), needed=is_pretrained).load(str(path))


def test_safetensors_files_are_read(tmp_path):
    from safetensors.torch import save_file

    save_file(layouts.torchvision(SMALL), tmp_path / "r50.safetensors")
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "r50.safetensors").read_bytes()[:5000])

    assert len(convert(tmp_path / "r50.safetensors", base()).mapped) == 265
    assert "truncated, or not a checkpoint" in refused(tmp_path / "cut.safetensors")


def test_a_torchvision_resnet_gives_the_same_features(tmp_path):
    """The real thing: torchvision's model beside its converted weights."""
    from torchvision.models import resnet50

    torch.manual_seed(0)
    theirs = resnet50().eval()
    theirs.avgpool = theirs.fc = torch.nn.Identity()
    for module in theirs.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    found = convert(saved(tmp_path, theirs.state_dict()), base())
    model = build_model(found.cfg).eval()
    Checkpointer(model, needed=is_pretrained).load(str(saved(tmp_path, {"model": found.weights}, "ours.pth")))
    x = torch.randn(1, 3, 64, 96)

    with torch.no_grad():
        expected, features = theirs(x), model.backbone.bottom_up(x)["res5"].flatten(1)

    torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())


def refused(path, cfg=None, **options):
    with pytest.raises(InputError) as caught:
        convert(path, cfg or base(SMALL_CFG), **options)
    message = str(caught.value)
    assert str(path) in message and "\n" not in message
    return message


def test_files_with_missing_or_unknown_keys_are_refused(tmp_path):
    whole = layouts.paper(SMALL)["model"]

    def without(part):
        return {key: value for key, value in whole.items() if part not in key}

    for weights, message in (
        (without("fpn_layer3.bias"), "lacks backbone.fpn_output4.bias"),
        (without("layer2.2."), "lacks backbone.bottom_up.res3.2.conv1.weight, "),
        (without("layer3.5."), "third stage has 5 blocks"),
        ({**whole, "module.rpn.head.extra": torch.zeros(1)}, "no place here for rpn.head.extra"),
        (
            {**whole, "module.backbone.fpn.top_blocks.p6.weight": torch.zeros(64, 2048, 3, 3)},
            "top_block.p6.weight is (64, 2048, 3, 3), not (64, 64, 3, 3)",
        ),
        (
            torch.nn.Linear(2, 2).state_dict(),
            "not a checkpoint of one of the paper's repository, DynamicHead, mmdetection",
        ),
        ({"backbone.bottom_up.stem.conv1.weight": torch.zeros(1)}, "Detectron2's names already"),
    ):
        assert message in refused(saved(tmp_path, {"model": weights}))


@pytest.mark.parametrize(
    "key, shape, message",
    [
        ("stage4.unit7.conv2.conv.weight", None, "lacks backbone.bottom_up.res4.6.conv.1.0.weight"),
        ("stage1.unit1.conv1.conv.weight", None, "lacks backbone.bottom_up.stem.1.conv.0.0.weight"),
        ("stage2.unit3.conv1.conv.weight", (1,), "no place for backbone.bottom_up.res2.2.conv.0.0.weight"),
        ("stage1.unit2.conv1.conv.weight", (1,), "no place for backbone.bottom_up.stem.2.conv.0.0.weight"),
        ("stage3.unit1.conv1.conv.weight", (72, 12, 1, 1), "res3.0.conv.0.0.weight is (72, 12, 1, 1), not (144, 24"),
        ("final_block.conv.weight", (1280, 320, 1, 1), "no place here for model.backbone.features.final_block.conv"),
    ],
)
def test_mobilenets_of_another_architecture_are_refused(tmp_path, key, shape, message):
    content = layouts.otx(layouts.MOBILENETV2, light=True)
    content["state_dict"].pop(f"model.backbone.features.{key}", None)
    if shape:
        content["state_dict"][f"model.backbone.features.{key}"] = torch.zeros(shape)

    assert message in refused(saved(tmp_path, content))


def test_a_config_that_does_not_fit_is_refused_with_both_values(tmp_path):
    path = saved(tmp_path, layouts.paper(SMALL))

    for name, message in (
        ("atss_R_101_FPN_2x", "a model with MODEL.RESNETS.DEPTH 50, but the config has 101"),
        (
            "atss_R_50_FPN_1x_dcnv2",
            "DEFORM_ON_PER_STAGE [False, False, False, False], but the config has [False, True, True, True]",
        ),
    ):
        cfg = load_config(f"configs/{name}.yaml", SMALL_CFG)
        assert message in refused(path, cfg, own_model=True, own_datasets=True)
    convert(path, load_config("configs/atss_R_50_FPN_1x.yaml", SMALL_CFG), own_model=True, own_datasets=True)


def test_backbones_and_detectors_of_other_strides_fit_a_custom_config(tmp_path):
    """The stride in the 1x1 or the 3x3 is a convention; ImageNet weights have no offsets; BN counts its batches."""
    cfg = load_config("configs/atss_R_50_FPN_1x.yaml", [*SMALL_CFG, "SOLVER.MAX_ITER", "7"])
    deformable = load_config("configs/atss_R_50_FPN_1x_dcnv2.yaml", [*SMALL_CFG, "MODEL.RESNETS.NORM", "SyncBN"])
    detector, backbone = layouts.mmdetection(SMALL, light=True), layouts.torchvision(SMALL)

    found = convert(saved(tmp_path, detector), cfg, own_model=True, own_datasets=True).cfg
    other = convert(saved(tmp_path, backbone), deformable, own_model=True)

    assert (found.MODEL.RESNETS.STRIDE_IN_1X1, found.SOLVER.MAX_ITER) == (False, 7)
    assert other.cfg.MODEL.RESNETS.DEFORM_ON_PER_STAGE == [False, True, True, True]
    assert other.filled and all(key.endswith("num_batches_tracked") for key in other.filled)
    offsets = [key for key in shapes_of(other.cfg) if "conv2_offset" in key]
    assert offsets and not any(key in other.weights for key in offsets)
    kept = convert(saved(tmp_path, detector), base(SMALL_CFG), keep=["INPUT.RESIZE_LIKE"]).cfg
    assert kept.INPUT.RESIZE_LIKE == "detectron2"


def test_classes_and_datasets_of_the_written_config_are_the_models(tmp_path, coco_file):
    data = {"DATASETS.REGISTER": [["animals", *coco_file()]]}
    mine = pairs({**data, "DATASETS.TRAIN": ("animals",), "DATASETS.TEST": ("animals",)})

    def classes(content, opts=(), **options):
        cfg = convert(saved(tmp_path, content), base([*SMALL_CFG, *opts]), **options).cfg
        return cfg.MODEL.ATSS.NUM_CLASSES, cfg.MODEL.ATSS.CLASS_NAMES, cfg.DATASETS.TEST

    three, two, eighty = (layouts.mmdetection(SMALL, classes=n, light=True) for n in (3, 2, 80))
    assert classes(three) == (3, ["thing 0", "thing 1", "thing 2"], ())
    assert classes(layouts.paper(SMALL, 2, light=True)) == (2, ["class 0", "class 1"], ())
    assert classes(two, mine, own_datasets=True) == (2, ["cat", "dog"], ("animals",))
    assert classes(eighty) == (80, [f"thing {i}" for i in range(80)], ()), "eighty other classes than COCO's"
    number, names, datasets = classes(layouts.paper(SMALL, light=True))
    assert (number, names[0], datasets) == (80, "person", ("coco_2017_val",))
    assert "a model of 3 classes, but the config's datasets have 2" in refused(
        saved(tmp_path, three), base([*SMALL_CFG, *mine]), own_datasets=True
    )


CONV = (64, 64, 3, 3)
IMPOSSIBLE = {
    "backbone.body.layer1.0.conv2.weight": [
        None, torch.zeros(()), torch.zeros(64, 0, 3, 3), torch.zeros(CONV).to_sparse(),
        torch.zeros(CONV, device="meta"), torch.full(CONV, torch.nan), torch.zeros(CONV, dtype=torch.complex64),
    ],
    "rpn.head.cls_logits.weight": [torch.zeros(()), torch.zeros(80)],
    "rpn.head.centerness.bias": [torch.zeros(0), torch.zeros(())],
    "rpn.head.scales.2.scale": [torch.zeros(2), None],
    "rpn.head.cls_tower.9.weight": [None],
    "rpn.head.bbox_pred.bias": [torch.zeros((), dtype=torch.half).expand(1 << 42)],
}  # fmt: skip


@pytest.mark.parametrize("key, value", [(key, value) for key, values in IMPOSSIBLE.items() for value in values])
def test_weights_of_impossible_values_are_refused_in_one_line(tmp_path, key, value):
    content = layouts.paper(SMALL, light=True)
    content["model"][f"module.{key}"] = value
    if value is None:
        del content["model"][f"module.{key}"]

    assert len(refused(saved(tmp_path, content))) < 600


def test_the_command_writes_all_or_nothing(tmp_path, coco_file):
    """Converted, evaluated and drawn by the commands of the README."""
    path = saved(tmp_path, layouts.mmdetection(SMALL, classes=2))
    output = tmp_path / "converted"

    result = run_forked("tools/convert_checkpoint.py", path, "--output", output)

    assert "of mmdetection; " in result.stdout and "8 filled in" in result.stdout
    assert sorted(p.name for p in output.iterdir()) == ["config.yaml", "keys.txt", "model.pth"]
    keys = (output / "keys.txt").read_text()
    assert "mapped  bbox_head.atss_cls.bias -> head.class_logits.bias\n" in keys
    assert "left    backbone.bn1.num_batches_tracked\n" in keys and "filled  head.box_tower.0.bias (0)\n" in keys

    annotations, images = coco_file()
    data = {"DATASETS.REGISTER": [["animals", annotations, images]], "DATASETS.TEST": ("animals",)}
    small = {"INPUT.MIN_SIZE_TEST": 64, "INPUT.MAX_SIZE_TEST": 96, "OUTPUT_DIR": tmp_path / "out"}
    config, opts = ("--config-file", output / "config.yaml"), pairs({**data, "MODEL.ATSS.CLASS_NAMES": [], **small})
    run_forked("train_net.py", *config, "--eval-only", *opts)
    assert (tmp_path / "out/inference/coco_instances_results.json").is_file()
    drawn = tmp_path / "drawn"
    run_forked("demo/demo.py", *config, "--input", f"{images}/0.png", "--output", drawn, "--opts", *pairs(small))
    assert (drawn / "0.png").is_file()

    again = run_forked("tools/convert_checkpoint.py", path, "--output", output, check=False)
    assert "is there already, and not an empty folder" in error_line(again)
    path.write_bytes(path.read_bytes()[:1000])
    line = error_line(run_forked("tools/convert_checkpoint.py", path, "--output", tmp_path / "other", check=False))
    assert "truncated" in line and not (tmp_path / "other").exists()
    assert not list(tmp_path.glob("tmp*"))


def test_a_full_disk_leaves_nothing(tmp_path):
    conversion = convert(saved(tmp_path, layouts.mmdetection(SMALL, classes=2)), base())

    with file_size_limit(2000), pytest.raises(InputError, match=r"converted: cannot write there \(File too large\)"):
        convert_command.write(conversion, "theirs.pth", str(tmp_path / "converted"))

    assert [path.suffix for path in tmp_path.iterdir()] == [".pth"]
