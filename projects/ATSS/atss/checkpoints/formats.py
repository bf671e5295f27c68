"""Checkpoints of other codebases: how to recognise them, rename their keys, and set the config to their conventions."""

import re
from collections.abc import Callable
from typing import NamedTuple

from detectron2.checkpoint.c2_model_loading import convert_basic_c2_names

BOTTOM_UP = "backbone.bottom_up."  # prefix of the keys that ImageNet weights provide


def is_pretrained(key):
    """Whether ImageNet weights must provide a key of the model.

    Offsets of deformable layers are initialised to 0; statistics are folded into weight and bias, or collected again.
    Backbones of timm may have layers behind the ImageNet model.
    """
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    if key.startswith((f"{BOTTOM_UP}norms.", f"{BOTTOM_UP}pyramid.")):
        return False
    return key.startswith(BOTTOM_UP) and "conv2_offset" not in key and not key.endswith(statistics)


MSRA_INPUT = {
    "INPUT.FORMAT": "BGR",
    "MODEL.PIXEL_MEAN": [102.9801, 115.9465, 122.7717],
    "MODEL.PIXEL_STD": [1.0, 1.0, 1.0],
}
DETECTRON2_INPUT = {**MSRA_INPUT, "MODEL.PIXEL_MEAN": [103.53, 116.28, 123.675]}
TORCHVISION_INPUT = {
    "INPUT.FORMAT": "RGB",
    "MODEL.PIXEL_MEAN": [123.675, 116.28, 103.53],
    "MODEL.PIXEL_STD": [58.395, 57.12, 57.375],
}


class Format(NamedTuple):
    """A codebase."""

    title: str  # name in messages
    marks: tuple  # keys that identify its checkpoints
    rename: Callable  # function from a key to ours: None for one that is not used, "" for an unknown one
    parts: tuple  # prefixes of the model's keys, all of which must be known
    settings: dict  # config keys and values for the codebase's conventions
    stride_in_1x1: bool = False  # whether its ResNets (of one group) have the stride in a block's first convolution
    batch_norm_eps: float = 1e-5  # epsilon of its batch normalisation
    absent: tuple = ()  # patterns of our keys that its models lack, with the value to fill in
    provides: str = ".*"  # pattern of our keys that a file has, all of them; a whole model unless given
    reproduced: dict | None = None  # settings of its models with 1x1 predictors, which follow DynamicHead
    arrange: Callable | None = None  # function that changes the order of values in renamed weights, in place

    @property
    def whole(self):
        """Whether a file is a whole model, not only weights to train from."""
        return self.provides == ".*"


def first_match(*rules):
    """Function that renames a key by the first (pattern, replacement) that matches; "" for an unknown key."""

    def rename(key):
        for pattern, replacement in rules:
            if match := re.fullmatch(pattern, key):
                return replacement and (replacement(match) if callable(replacement) else match.expand(replacement))
        return ""

    return rename


def resnet(prefix, stem):
    """Rules for a ResNet with torchvision's names, including deformable layers, behind `prefix`."""

    def stage(rest):
        return lambda m: f"{BOTTOM_UP}res{int(m[1]) + 1}.{m[2]}.{m.expand(rest)}"  # layer1 is res2

    block = prefix + r"layer(\d)\.(\d+)\."
    return [
        (prefix + stem + r"conv1\.weight", BOTTOM_UP + "stem.conv1.weight"),
        (prefix + stem + r"bn1\.(weight|bias|running_\w+)", BOTTOM_UP + r"stem.conv1.norm.\1"),
        (block + r"downsample\.0\.weight", stage("shortcut.weight")),
        (block + r"downsample\.1\.(weight|bias|running_\w+)", stage(r"shortcut.norm.\3")),
        (block + r"bn(\d)\.(weight|bias|running_\w+)", stage(r"conv\3.norm.\4")),
        (block + r"conv2\.(?:offset|conv_offset)\.(weight|bias)", stage(r"conv2_offset.\3")),
        (block + r"conv(\d)\.(?:conv\.)?weight", stage(r"conv\3.weight")),
        (prefix + r".*num_batches_tracked", None),
    ]


def numbered(name, offset):
    """Replacement: `name`, first group plus `offset`, dot, second group."""
    return lambda m: f"{name}{int(m[1]) + offset}.{m[2]}"


def tower(m):
    """The paper's towers are flat: convolution, normalisation, ReLU, convolution, ..."""
    name, place = {"cls": "class", "bbox": "box"}[m[1]], int(m[2])
    return f"head.{name}_tower.{place // 3}.{('', 'norm.', 'relu.')[place % 3]}{m[3]}"


def predictors(prefix):
    """Rules for the predictors of the paper's head, whose names DynamicHead keeps, behind `prefix`."""
    return [
        (prefix + r"cls_logits\.(\w+)", r"head.class_logits.\1"),
        (prefix + r"bbox_pred\.(\w+)", r"head.box_deltas.\1"),
        (prefix + r"centerness\.(\w+)", r"head.centerness.\1"),
        (prefix + r"scales\.(\d)\.scale", r"head.scales.\1"),
    ]


MOBILENET_LAYERS = {
    "conv1.conv": "0.0", "conv1.bn": "0.1", "conv2.conv": "1.0", "conv2.bn": "1.1", "conv3.conv": "2", "conv3.bn": "3",
}  # fmt: skip


def inverted_residual(m):
    """Our name of a layer of pytorchcv's MobileNetV2, whose first stage is in our stem."""
    place = f"stem.{m[2]}" if m[1] == "1" else f"res{m[1]}.{int(m[2]) - 1}"
    return f"{BOTTOM_UP}{place}.conv.{MOBILENET_LAYERS[m[3]]}.{m[4]}"


def dynamic_head(prefix, names):
    """Rules for a dynamic head whose blocks are numbered behind `prefix`; `names` maps the parts of a block to ours."""
    for theirs, ours in names.items():
        part = prefix + r"(\d+)\." + re.escape(theirs)
        yield part + r"\.(?:bn|norm)\.(\w+)", rf"neck.blocks.\1.{ours}.norm.\2"
        yield part + r"\.(?:conv\.)?(\w+)", rf"neck.blocks.\1.{ours}.\2"


def swin(prefix, stages, names):
    """Rules for a Swin Transformer behind `prefix`, whose `stages` end with the merging that timm's begin with.

    `names` are pairs of a pattern for parts of a block, or of the patch embedding, and timm's name.
    """
    model = BOTTOM_UP + "model."
    block = prefix + stages + r"\.(\d)\.blocks\.(\d+)\."
    for theirs, ours in names:
        yield block + theirs + r"\.(weight|bias)", rf"{model}layers.\1.blocks.\2.{ours}.\3"
    yield block + r"(norm[12]\.\w+)", rf"{model}layers.\1.blocks.\2.\3"
    yield block + r"attn\.(?:w_msa\.)?relative_position_index", None  # follows from the size of a window
    yield (
        block + r"attn\.(?:w_msa\.)?((?:qkv|proj)\.\w+|relative_position_bias_table)",
        rf"{model}layers.\1.blocks.\2.attn.\3",
    )
    yield prefix + stages + r"\.(\d)\.(downsample\.\w+\.\w+)", numbered(f"{model}layers.", 1)
    yield prefix + r"patch_embed\.proj(?:ection)?\.(\w+)", rf"{model}patch_embed.proj.\1"
    yield prefix + r"patch_embed\.(norm\.\w+)", rf"{model}patch_embed.\1"
    yield prefix + r"norm(\d)\.(weight|bias)", numbered(f"{BOTTOM_UP}norms.res", 2)


def order_merging(weights):
    """Order the inputs of a Swin Transformer's mergings as in the original, not as by `unfold`; in place."""
    for key, value in weights.items():
        if ".downsample." in key:  # channel, row, column -> column, row, channel
            weights[key] = value.unflatten(-1, (-1, 2, 2)).transpose(-1, -3).flatten(-3)


PAPER = Format(
    "the paper's repository",
    ("rpn.head.cls_logits.weight", "rpn.head.centerness.weight", "backbone.body.stem.conv1.weight"),
    first_match(
        *resnet(r"backbone\.body\.", r"stem\."),
        (r"backbone\.fpn\.fpn_inner(\d)\.(weight|bias)", numbered("backbone.fpn_lateral", 1)),
        (r"backbone\.fpn\.fpn_layer(\d)\.(weight|bias)", numbered("backbone.fpn_output", 1)),
        (r"backbone\.fpn\.top_blocks\.(p[67]\.\w+)", r"backbone.top_block.\1"),
        (r"rpn\.head\.(cls|bbox)_tower\.(\d+)\.((?:(?:offset|conv)\.)?(?:weight|bias))", tower),
        *predictors(r"rpn\.head\."),
        (r"rpn\.anchor_generator\.cell_anchors\.\d", None),
    ),
    ("backbone.", "rpn."),
    {
        **MSRA_INPUT,
        "INPUT.RESIZE_LIKE": "maskrcnn-benchmark",
        "MODEL.ATSS.PIXEL_EXTENT": 1,
        "MODEL.ATSS.ANCHOR_OFFSET": 0.5,
        "MODEL.ATSS.RELU_BEFORE_P7": True,
        "MODEL.ATSS.TOPK_BY_CENTERNESS": True,
        "MODEL.ATSS.SCORE_ROOT": True,
    },
    stride_in_1x1=True,
    batch_norm_eps=0.0,
)


DYNAMIC_HEAD_CONVENTIONS = {
    "INPUT.RESIZE_LIKE": "detectron2",
    "MODEL.ATSS.PIXEL_EXTENT": 0,
    "MODEL.ATSS.ANCHOR_OFFSET": 0.5,
    "MODEL.ATSS.SIZE_DIVISIBILITY": 128,
    "MODEL.ATSS.SCORE_ROOT": False,
}
DYNAMIC_HEAD = Format(
    "DynamicHead",
    ("backbone.dyhead_tower.0.offset.weight", "head.centerness.weight"),
    first_match(
        (r"backbone\.backbone\.(bottom_up\.(?:stem|res\d\.\d+)\..*|(?:fpn_|top_block\.).*)", r"backbone.\1"),
        *swin(r"backbone\.backbone\.bottom_up\.", "layers", [(r"mlp\.fc1", "mlp.fc1"), (r"mlp\.fc2", "mlp.fc2")]),
        *dynamic_head(
            r"backbone\.dyhead_tower\.",
            {
                "offset": "offset",
                "DyConv.1": "same",
                "DyConv.0": "coarser",
                "DyConv.2": "finer",
                "AttnConv.1": "scale",
                "relu.fc.0": "relu.squeeze",
                "relu.fc.2": "relu.expand",
            },
        ),
        *predictors(r"head\."),
        (r"anchor_generator\.cell_anchors\.\d", None),
    ),
    ("backbone.", "head."),
    {
        **DETECTRON2_INPUT,
        **DYNAMIC_HEAD_CONVENTIONS,
        "MODEL.ATSS.RELU_BEFORE_P7": True,
        "MODEL.ATSS.TOPK_BY_CENTERNESS": True,
        "MODEL.ATSS.CLIP_BEFORE_NMS": False,
    },
    stride_in_1x1=True,
)
DYNAMIC_HEAD_SWIN = DYNAMIC_HEAD._replace(
    marks=(*DYNAMIC_HEAD.marks, "backbone.backbone.bottom_up.patch_embed.proj.weight"),
    settings={**DYNAMIC_HEAD.settings, **TORCHVISION_INPUT},
)

MMDETECTION = Format(
    "mmdetection",
    ("bbox_head.atss_cls.weight", "backbone.conv1.weight"),
    first_match(
        *resnet(r"backbone\.", ""),
        *swin(r"backbone\.", "stages", [(r"ffn\.layers\.0\.0", "mlp.fc1"), (r"ffn\.layers\.1", "mlp.fc2")]),
        (r"backbone\.features\.init_block\.conv\.weight", BOTTOM_UP + "stem.0.0.weight"),
        (r"backbone\.features\.init_block\.bn\.(\w+)", BOTTOM_UP + r"stem.0.1.\1"),
        (r"backbone\.features\.stage(\d)\.unit(\d)\.(conv[1-3]\.(?:conv|bn))\.(\w+)", inverted_residual),
        (r"neck\.(?:0\.)?lateral_convs\.(\d)\.conv\.(weight|bias)", numbered("backbone.fpn_lateral", 3)),
        (r"neck\.(?:0\.)?fpn_convs\.([0-2])\.conv\.(weight|bias)", numbered("backbone.fpn_output", 3)),
        (r"neck\.(?:0\.)?fpn_convs\.([34])\.conv\.(weight|bias)", numbered("backbone.top_block.p", 3)),
        *dynamic_head(
            r"neck\.1\.dyhead_blocks\.",
            {
                "spatial_conv_offset": "offset",
                "spatial_conv_mid": "same",
                "spatial_conv_high": "coarser",
                "spatial_conv_low": "finer",
                "scale_attn_module.1": "scale",
                "task_attn_module.conv1": "relu.squeeze",
                "task_attn_module.conv2": "relu.expand",
            },
        ),
        (r"bbox_head\.cls_convs\.(\d)\.conv\.(weight|bias)", r"head.class_tower.\1.\2"),
        (r"bbox_head\.reg_convs\.(\d)\.conv\.(weight|bias)", r"head.box_tower.\1.\2"),
        (r"bbox_head\.cls_convs\.(\d)\.gn\.(weight|bias)", r"head.class_tower.\1.norm.\2"),
        (r"bbox_head\.reg_convs\.(\d)\.gn\.(weight|bias)", r"head.box_tower.\1.norm.\2"),
        (r"bbox_head\.(?:atss|gfl)_cls\.(\w+)", r"head.class_logits.\1"),
        (r"bbox_head\.(?:atss|gfl)_reg\.(\w+)", r"head.box_deltas.\1"),
        (r"bbox_head\.atss_centerness\.(\w+)", r"head.centerness.\1"),
        (r"bbox_head\.scales\.(\d)\.scale", r"head.scales.\1"),
        (r"bbox_head\.integral\.project", None),  # 0, 1, ..., n
    ),
    ("backbone.", "neck.", "bbox_head."),
    {
        **TORCHVISION_INPUT,
        "INPUT.RESIZE_LIKE": "mmdetection",
        "MODEL.ATSS.PIXEL_EXTENT": 0,
        "MODEL.ATSS.ANCHOR_OFFSET": 0.0,
        "MODEL.ATSS.RELU_BEFORE_P7": False,
        "MODEL.ATSS.TOPK_BY_CENTERNESS": False,
        "MODEL.ATSS.SCORE_ROOT": False,
    },
    # Its convolutions have no bias before a normalisation.
    absent=((r"head\.(class|box)_tower\.\d\.bias|neck\.blocks\.\d+\.(same|coarser|finer)\.bias", 0.0),),
    reproduced={**DETECTRON2_INPUT, **DYNAMIC_HEAD_CONVENTIONS, "MODEL.RESNETS.STRIDE_IN_1X1": True},
)
MMDETECTION_SWIN = MMDETECTION._replace(
    marks=("bbox_head.atss_cls.weight", "backbone.patch_embed.projection.weight"),
    settings={**MMDETECTION.settings, "INPUT.MIN_SIZE_TEST": 1200, "INPUT.MAX_SIZE_TEST": 2000},
    reproduced=DYNAMIC_HEAD_CONVENTIONS,
    arrange=order_merging,
)

# OpenVINO Training Extensions has mmdetection's names, behind "model." (2.x) or in a wrapper (1.x, see `weights_in`).
# It stretches images to 992x800 pixels; here they keep their aspect ratio within that size.
OTX = MMDETECTION._replace(
    title="OpenVINO Training Extensions",
    marks=("model.bbox_head.atss_cls.weight", "model.backbone.conv1.weight"),
    rename=lambda key: MMDETECTION.rename(key.removeprefix("model.")),
    parts=("model.",),
    settings={
        **MMDETECTION.settings,
        "MODEL.PIXEL_MEAN": [0.0, 0.0, 0.0],
        "MODEL.PIXEL_STD": [255.0, 255.0, 255.0],
        "MODEL.ATSS.RELU_BEFORE_P7": True,
        "INPUT.MIN_SIZE_TRAIN": (800,),
        "INPUT.MAX_SIZE_TRAIN": 992,
        "INPUT.MIN_SIZE_TEST": 800,
        "INPUT.MAX_SIZE_TEST": 992,
    },
    reproduced=None,
)
OTX_MOBILENET = OTX._replace(
    marks=("model.bbox_head.atss_cls.weight", "model.backbone.features.init_block.conv.weight"),
    settings={**OTX.settings, "MODEL.BACKBONE.FREEZE_AT": 0},
)
# Its published MobileNetV2-ATSS has neither. Its ResNeXt101-ATSS would be mmdetection's by its names.
OTX_PUBLISHED = OTX_MOBILENET._replace(
    marks=("bbox_head.atss_cls.weight", "backbone.features.init_block.conv.weight"), parts=MMDETECTION.parts
)

# ImageNet weights have no offsets, which are initialised to 0.
RESNET = re.escape(BOTTOM_UP) + "(?!.*conv2_offset).*"
# Detectron2's models have our names; FCOS has our whole pyramid, but RetinaNet's P6 is computed from C5.
PYRAMID = r"backbone\.fpn_(?:lateral|output)\d\..*"
PYRAMID_TO_P7 = PYRAMID + r"|backbone\.top_block\..*"
REST_OF_DETECTRON2 = r"(?:backbone\.top_block|head|anchor_generator)\..*|pixel_mean|pixel_std"

RETINANET = Format(
    "Detectron2's RetinaNet",
    (f"{BOTTOM_UP}stem.conv1.weight", "backbone.fpn_lateral3.weight", "head.cls_subnet.0.weight"),
    first_match((f"({RESNET}|{PYRAMID})", r"\1"), (REST_OF_DETECTRON2, None)),
    ("",),
    DETECTRON2_INPUT,
    stride_in_1x1=True,
    provides=f"{RESNET}|{PYRAMID}",
)

FCOS = RETINANET._replace(
    title="Detectron2's FCOS",
    marks=(*RETINANET.marks, "head.ctrness.weight"),
    rename=first_match((f"({RESNET}|{PYRAMID_TO_P7})", r"\1"), (REST_OF_DETECTRON2, None)),
    provides=f"{RESNET}|{PYRAMID_TO_P7}",
)

MMDETECTION_GFL = MMDETECTION._replace(
    title="mmdetection's GFL", marks=("bbox_head.gfl_cls.weight", "backbone.conv1.weight")
)

TORCHVISION = Format(
    "torchvision's or timm's ResNets",
    ("conv1.weight", "bn1.running_mean", "layer1.0.conv1.weight"),
    first_match(*resnet("", ""), (r"fc\.(weight|bias)", None)),
    ("",),
    TORCHVISION_INPUT,
    provides=RESNET,
)


def caffe2_name(key):
    """Our name of a ResNet's key; None for anything else in a Caffe2 file."""
    (name,) = convert_basic_c2_names([key])
    layer = r"(stem|res\d\.\d+)\.(conv\d|shortcut)\.(weight|norm\.(weight|bias|running_mean|running_var))"
    return BOTTOM_UP + name if re.fullmatch(layer, name) else None


MSRA = Format(
    "MSRA's ResNets (Caffe2)",
    ("conv1_w", "res_conv1_bn_s", "res2_0_branch2a_w"),
    caffe2_name,
    (),
    MSRA_INPUT,
    stride_in_1x1=True,
    batch_norm_eps=0.0,
    # Statistics are folded into weight and bias.
    absent=((r".*\.running_mean", 0.0), (r".*\.running_var", 1.0)),
    provides=RESNET,
)

FORMATS = (
    PAPER, DYNAMIC_HEAD_SWIN, DYNAMIC_HEAD, MMDETECTION_SWIN, MMDETECTION, MMDETECTION_GFL, OTX, OTX_MOBILENET,
    OTX_PUBLISHED, FCOS, RETINANET, TORCHVISION, MSRA,
)  # fmt: skip


def format_of(weights):
    """The `Format` of a dict (or set of keys) of weights, or None."""
    return next((format for format in FORMATS if all(mark in weights for mark in format.marks)), None)
