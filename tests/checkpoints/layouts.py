"""Checkpoints with random weights in the layouts of other codebases, written down name by name."""

import re

import torch

BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
# Channels of the units of MobileNetV2, by stage.
MOBILENET = ((16,), (24,) * 2, (32,) * 3, (64,) * 4 + (96,) * 3, (160,) * 3 + (320,))
STATISTICS = ("weight", "bias", "running_mean", "running_var")


class Architecture:
    """What a published model is made of.

    Width of a group, groups, stages with deformable layers of its ResNet; or channels of the first stage, blocks of the
    third one, heads of the first one and side of a window of its Swin Transformer; or True for a MobileNetV2; blocks of
    the dynamic head, which replaces the towers; and side of the predictors.
    """

    def __init__(
        self, depth=50, groups=1, width=64, deformable_stages=(), deformable_tower=False, channels=256, blocks=0,
        kernel=3, swin=None, mobile=False,
    ):  # fmt: skip
        self.depth, self.groups, self.width = depth, groups, width
        self.deformable_stages, self.deformable_tower, self.channels = deformable_stages, deformable_tower, channels
        self.blocks, self.kernel, self.swin, self.mobile = blocks, kernel, swin, mobile

    def stage_channels(self, level):
        """Channels of the feature map under P3, P4 or P5."""
        if self.mobile:
            return MOBILENET[level - 1][-1]
        return (self.swin[0] if self.swin else 128) * 2 ** (level - 2) * (1 if self.swin else 2)


# The eight models of the paper's repository, and those of mmdetection.
PAPER = {
    "atss_R_50_FPN_1x": Architecture(),
    "atss_R_50_FPN_1x_dcnv2": Architecture(deformable_stages=(2, 3, 4), deformable_tower=True),
    "atss_R_101_FPN_2x": Architecture(101),
    "atss_R_101_FPN_2x_dcnv2": Architecture(101, deformable_stages=(2, 3, 4), deformable_tower=True),
    "atss_X_101_32x8d_FPN_2x": Architecture(101, 32, 8),
    "atss_X_101_32x8d_FPN_2x_dcnv2": Architecture(101, 32, 8, (3, 4), True),
    "atss_X_101_64x4d_FPN_2x": Architecture(101, 64, 4),
    "atss_X_101_64x4d_FPN_2x_dcnv2": Architecture(101, 64, 4, (3, 4), True),
}
MMDETECTION = {"atss_R_50_FPN_1x": Architecture(), "atss_R_101_FPN_1x": Architecture(101)}
# mmdetection's own R-50 model with a dynamic head; its reproduction of DynamicHead's, and that one.
DYHEAD, DYHEAD_1X1 = Architecture(blocks=6), Architecture(blocks=6, kernel=1)
SWIN_T = Architecture(blocks=6, kernel=1, swin=(96, 6, 3, 7))
MOBILENETV2 = Architecture(channels=64, mobile=True)
SWIN_L = Architecture(blocks=6, kernel=1, swin=(192, 18, 6, 12))


def filled(shapes, light=False):
    """Shapes by name -> random values; variances are positive. Light: one value a tensor, which makes small files."""
    if light:
        return {name: torch.rand(()).expand(shape) for name, shape in shapes.items()}
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.rand(shape, generator=generator) + 0.5
        if name.endswith("var")
        else torch.randn(shape, generator=generator) * 0.02
        for name, shape in shapes.items()
    }


def resnet(a, prefix="", stem="", inner="", offset="offset"):
    """Shapes of a ResNet by torchvision's names; `inner` stands before the weight of a deformable layer."""
    shapes = {f"{prefix}{stem}conv1.weight": (64, 3, 7, 7)}
    shapes |= {f"{prefix}{stem}bn1.{s}": (64,) for s in STATISTICS}
    in_channels = 64
    for stage, number in enumerate(BLOCKS[a.depth], 1):
        out_channels, middle = 256 * 2 ** (stage - 1), a.groups * a.width * 2 ** (stage - 1)
        for n in range(number):
            block = f"{prefix}layer{stage}.{n}."
            deformable = stage in a.deformable_stages
            if n == 0:
                shapes[f"{block}downsample.0.weight"] = (out_channels, in_channels, 1, 1)
                shapes |= {f"{block}downsample.1.{s}": (out_channels,) for s in STATISTICS}
            shapes[f"{block}conv1.weight"] = (middle, in_channels, 1, 1)
            if deformable:
                shapes[f"{block}conv2.{offset}.weight"] = (27, middle, 3, 3)
                shapes[f"{block}conv2.{offset}.bias"] = (27,)
            shapes[f"{block}conv2.{inner if deformable else ''}weight"] = (middle, middle // a.groups, 3, 3)
            shapes[f"{block}conv3.weight"] = (out_channels, middle, 1, 1)
            for i, channels in ((1, middle), (2, middle), (3, out_channels)):
                shapes |= {f"{block}bn{i}.{s}": (channels,) for s in STATISTICS}
            in_channels = out_channels
    return shapes


def swin(a, prefix, inner="", **names):
    """Shapes of a Swin Transformer by the names of its repository, without classifier, or by other `names` for some;
    `inner` stands before the layers of attention."""
    c, third, heads, window = a.swin
    layers, fc1, fc2, proj = (names.get(name, name) for name in ("layers", "fc1", "fc2", "proj"))
    fc1, fc2 = (name if "." in name else f"mlp.{name}" for name in (fc1, fc2))
    shapes = {f"patch_embed.{proj}.weight": (c, 3, 4, 4), f"patch_embed.{proj}.bias": (c,)}
    norms = {"patch_embed.norm": c}
    for stage, blocks in enumerate((2, 2, third, 2)):
        width = c * 2**stage
        for n in range(blocks):
            block, attention = f"{layers}.{stage}.blocks.{n}.", f"{layers}.{stage}.blocks.{n}.attn.{inner}"
            norms |= {f"{block}norm1": width, f"{block}norm2": width}
            shapes[f"{attention}relative_position_bias_table"] = ((2 * window - 1) ** 2, heads * 2**stage)
            shapes[f"{attention}relative_position_index"] = (window**2, window**2)
            linear = {f"{attention}qkv": (3 * width, width), f"{attention}proj": (width, width)}
            linear |= {block + fc1: (4 * width, width), block + fc2: (width, 4 * width)}
            for name, sides in linear.items():
                shapes |= {f"{name}.weight": sides, f"{name}.bias": sides[:1]}
        if stage < 3:
            norms[f"{layers}.{stage}.downsample.norm"] = 4 * width
            shapes[f"{layers}.{stage}.downsample.reduction.weight"] = (2 * width, 4 * width)
        if stage > 0:
            norms[f"norm{stage}"] = width
    shapes |= {f"{name}.{s}": (width,) for name, width in norms.items() for s in ("weight", "bias")}
    return {prefix + name: shape for name, shape in shapes.items()}


def mobilenet(prefix):
    """Shapes of pytorchcv's MobileNetV2 up to its last feature map."""
    layers, in_channels = {"init_block": (32, 3, 3)}, 32
    for stage, units in enumerate(MOBILENET, 1):
        for i, out_channels in enumerate(units, 1):
            unit, middle = f"stage{stage}.unit{i}", in_channels * (1 if stage == 1 else 6)
            layers[f"{unit}.conv1"] = (middle, in_channels, 1)
            layers[f"{unit}.conv2"] = (middle, 1, 3)
            layers[f"{unit}.conv3"] = (out_channels, middle, 1)
            in_channels = out_channels
    shapes = {}
    for name, sides in layers.items():
        shapes |= convolution(f"{prefix}{name}.conv", *sides, bias=False)
        shapes |= {f"{prefix}{name}.bn.{s}": sides[:1] for s in STATISTICS}
        shapes[f"{prefix}{name}.bn.num_batches_tracked"] = ()
    return shapes


def convolution(name, out_channels, in_channels, size=3, bias=True):
    shapes = {f"{name}.weight": (out_channels, in_channels, size, size)}
    return {**shapes, f"{name}.bias": (out_channels,)} if bias else shapes


def paper(a, num_classes=80, light=False):
    """A checkpoint of the paper's repository, as its trainer writes it."""
    c = a.channels
    shapes = resnet(a, "backbone.body.", "stem.", inner="conv.")
    for level in (2, 3, 4):
        shapes |= convolution(f"backbone.fpn.fpn_inner{level}", c, 256 * 2 ** (level - 1), 1)
        shapes |= convolution(f"backbone.fpn.fpn_layer{level}", c, c)
    for level in (6, 7):
        shapes |= convolution(f"backbone.fpn.top_blocks.p{level}", c, c)
    for tower in ("cls_tower", "bbox_tower"):
        for i in range(4):
            name = f"rpn.head.{tower}.{3 * i}"
            if i == 3 and a.deformable_tower:
                shapes |= convolution(f"{name}.offset", 27, c) | convolution(f"{name}.conv", c, c)
            else:
                shapes |= convolution(name, c, c)
            shapes |= {f"rpn.head.{tower}.{3 * i + 1}.{s}": (c,) for s in ("weight", "bias")}
    shapes |= convolution("rpn.head.cls_logits", num_classes, c) | convolution("rpn.head.bbox_pred", 4, c)
    shapes |= convolution("rpn.head.centerness", 1, c)
    shapes |= {f"rpn.head.scales.{i}.scale": (1,) for i in range(5)}
    shapes |= {f"rpn.anchor_generator.cell_anchors.{i}": (1, 4) for i in range(5)}
    weights = {f"module.{name}": value for name, value in filled(shapes, light).items()}
    return {"model": weights, "optimizer": {"state": {}, "param_groups": []}, "scheduler": {}, "iteration": 90000}


def dynamic_head(a, prefix, convolutions, norm, attention, activation, offset, bias, flat):
    """Shapes of a dynamic head by the names of a block's parts; `flat`: its activation has linear layers."""
    c, shapes = a.channels, {}
    for i in range(a.blocks):
        block = f"{prefix}.{i}."
        for name in convolutions:
            shapes |= convolution(f"{block}{name}.conv", c, c, bias=bias)
            shapes |= {f"{block}{name}.{norm}.{s}": (c,) for s in ("weight", "bias")}
        shapes |= convolution(block + offset, 27, c) | convolution(block + attention, 1, c, 1)
        for name, sides in zip(activation, ((c // 4, c), (4 * c, c // 4)), strict=True):
            shapes |= convolution(block + name, *sides, 1)
            shapes |= {f"{block}{name}.weight": sides} if flat else {}
    return shapes


def dynamichead(a, num_classes=80, light=False):
    """A checkpoint of microsoft/DynamicHead."""
    c, shapes = a.channels, swin(a, "backbone.backbone.bottom_up.") if a.swin else {}
    for name, shape in ({} if a.swin else resnet(a)).items():
        name = ("" if name.startswith("layer") else "stem.") + re.sub(
            r"layer(\d)", lambda m: f"res{int(m[1]) + 1}", name
        )
        name = re.sub(r"bn(\d)", r"conv\1.norm", name).replace("downsample.0", "shortcut")
        shapes["backbone.backbone.bottom_up." + name.replace("downsample.1", "shortcut.norm")] = shape
    for level in (3, 4, 5):
        shapes |= convolution(f"backbone.backbone.fpn_lateral{level}", c, a.stage_channels(level), 1)
        shapes |= convolution(f"backbone.backbone.fpn_output{level}", c, c)
    for level in (6, 7):
        shapes |= convolution(f"backbone.backbone.top_block.p{level}", c, c)
    names = [f"DyConv.{i}" for i in range(3)], "bn", "AttnConv.1", ("relu.fc.0", "relu.fc.2"), "offset"
    shapes |= dynamic_head(a, "backbone.dyhead_tower", *names, bias=True, flat=True)
    shapes |= convolution("head.cls_logits", num_classes, c, 1) | convolution("head.bbox_pred", 4, c, 1)
    shapes |= convolution("head.centerness", 1, c, 1) | {f"head.scales.{i}.scale": (1,) for i in range(5)}
    return {"model": filled(shapes, light), "optimizer": {"state": {}, "param_groups": []}, "iteration": 89999}


def mmdetection(a, classes=80, version=3, light=False, gfl=False):
    """A checkpoint of an ATSS or a GFL model of mmdetection."""
    c, neck = a.channels, "neck.0" if a.blocks else "neck"
    if a.swin:
        names = {"layers": "stages", "fc1": "ffn.layers.0.0", "fc2": "ffn.layers.1", "proj": "projection"}
        shapes = swin(a, "backbone.", "w_msa.", **names)
    elif a.mobile:
        shapes = mobilenet("backbone.features.")
    else:
        shapes = resnet(a, "backbone.")
        shapes |= {name.replace("weight", "num_batches_tracked"): () for name in shapes if "bn1.weight" in name}
    for i in range(3):
        shapes |= convolution(f"{neck}.lateral_convs.{i}.conv", c, a.stage_channels(3 + i), 1)
    for i in range(5):
        shapes |= convolution(f"{neck}.fpn_convs.{i}.conv", c, c)
    names = [f"spatial_conv_{place}" for place in ("high", "mid", "low")], "norm", "scale_attn_module.1"
    activation = [f"task_attn_module.conv{i}.conv" for i in (1, 2)], "spatial_conv_offset"
    shapes |= dynamic_head(a, "neck.1.dyhead_blocks", *names, *activation, bias=False, flat=False)
    for tower in ("cls_convs", "reg_convs"):
        for i in range(0 if a.blocks else 4):
            shapes |= convolution(f"bbox_head.{tower}.{i}.conv", c, c, bias=False)
            shapes |= {f"bbox_head.{tower}.{i}.gn.{s}": (c,) for s in ("weight", "bias")}
    if gfl:
        shapes |= convolution("bbox_head.gfl_cls", classes, c) | convolution("bbox_head.gfl_reg", 4 * 17, c)
        shapes |= {"bbox_head.integral.project": (17,)}
    else:
        shapes |= convolution("bbox_head.atss_cls", classes, c, a.kernel)
        shapes |= convolution("bbox_head.atss_reg", 4, c, a.kernel)
        shapes |= convolution("bbox_head.atss_centerness", 1, c, a.kernel)
    shapes |= {f"bbox_head.scales.{i}.scale": () for i in range(5)}
    names = [f"thing {i}" for i in range(classes)]
    meta = {"CLASSES": tuple(names)} if version == 2 else {"dataset_meta": {"classes": tuple(names)}}
    return {"meta": meta, "state_dict": filled(shapes, light)}


def otx(a, version=2, classes=80, light=False):
    """A checkpoint of OpenVINO Training Extensions: of version 1 or 2, or 0 for a published one to train from."""
    published = mmdetection(a, classes, light=light)
    names, weights = published["meta"]["dataset_meta"]["classes"], published["state_dict"]
    if version == 0:
        return {"state_dict": weights}
    if version == 1:
        return {"model": {"meta": {}, "state_dict": weights}, "labels": dict.fromkeys(names, (0, 0, 0)), "VERSION": 1}
    settings = {"model_name": "atss", "label_info": {"label_names": list(names)}}
    weights = {f"model.{name}": value for name, value in weights.items()}
    return {"state_dict": weights, "callbacks": {}, "hyper_parameters": settings, "otx_version": "2.6.0"}


def torchvision(a):
    return filled({**resnet(a), "fc.weight": (1000, 2048), "fc.bias": (1000,)})


def caffe2(a):
    """Arrays by the names of MSRA's and FAIR's files."""
    weights = {}
    for name, value in filled(resnet(a)).items():
        *block, layer, kind = name.split(".")
        if kind.startswith("running"):
            continue
        place = f"res{int(block[0][5]) + 1}_{block[1]}_" if block else ""
        if not block:
            weights[{"conv1": "conv1_w", "bn1": f"res_conv1_bn_{kind[0]}"}[layer]] = value
        elif block[-1] == "downsample":
            weights[place + ("branch1_w" if layer == "0" else f"branch1_bn_{kind[0]}")] = value
        else:
            branch = "branch2" + "abc"[int(layer[-1]) - 1]
            weights[place + (f"{branch}_w" if layer.startswith("conv") else f"{branch}_bn_{kind[0]}")] = value
    # Caffe2 calls a normalisation's weight its scale.
    weights = {name[:-1] + "s" if name.endswith("bn_w") else name: value.numpy() for name, value in weights.items()}
    extra = {"fc1000_w": (1000, 2048), "fc1000_b": (1000,), "conv1_b": (64,), "conv1_w_momentum": (64, 3, 7, 7)}
    return {**weights, **{name: torch.zeros(shape).numpy() for name, shape in extra.items()}}


def detectron2(a, head="retinanet", num_classes=80):
    """A checkpoint of Detectron2's RetinaNet or FCOS, as its trainer writes it."""
    c, anchors = a.channels, 9 if head == "retinanet" else 1
    places = {"downsample.0": "shortcut", "downsample.1": "shortcut.norm"}
    places |= {f"bn{i}": f"conv{i}.norm" for i in (1, 2, 3)} | {f"conv{i}": f"conv{i}" for i in (1, 2, 3)}
    shapes = {}
    for name, shape in resnet(a).items():
        *block, layer, kind = name.split(".")
        stage = f"res{int(block[0][5]) + 1}.{block[1]}." if block else ""
        layer = f"downsample.{layer}" if "downsample" in block else layer
        shapes[f"backbone.bottom_up.{stage or 'stem.'}{places[layer]}.{kind}"] = shape
    for i in (3, 4, 5):
        shapes |= convolution(f"backbone.fpn_lateral{i}", c, 64 * 2**i, 1)
        shapes |= convolution(f"backbone.fpn_output{i}", c, c)
    shapes |= convolution("backbone.top_block.p6", c, 2048 if head == "retinanet" else c)
    shapes |= convolution("backbone.top_block.p7", c, c)
    for tower in ("cls_subnet", "bbox_subnet"):
        for i in range(4):
            shapes |= convolution(f"head.{tower}.{2 * i}", c, c)
    shapes |= convolution("head.cls_score", anchors * num_classes, c) | convolution("head.bbox_pred", anchors * 4, c)
    shapes |= convolution("head.ctrness", 1, c) if head == "fcos" else {}
    shapes |= {f"anchor_generator.cell_anchors.{i}": (anchors, 4) for i in range(5)}
    shapes |= {"pixel_mean": (3, 1, 1), "pixel_std": (3, 1, 1)}
    return {"model": filled(shapes), "iteration": 90000}
