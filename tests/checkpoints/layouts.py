"""Checkpoints with random weights in the layouts of other codebases, written down name by name."""

import torch

BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
STATISTICS = ("weight", "bias", "running_mean", "running_var")


class Architecture:
    """What a published model is made of: width of a group, groups, layers with deformable convolutions."""

    def __init__(self, depth=50, groups=1, width=64, deformable_stages=(), deformable_tower=False, channels=256):
        self.depth, self.groups, self.width = depth, groups, width
        self.deformable_stages, self.deformable_tower, self.channels = deformable_stages, deformable_tower, channels


# The eight models of the paper's repository, and the two of mmdetection.
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


def mmdetection(a, classes=80, version=3, light=False, gfl=False):
    """A checkpoint of an ATSS or a GFL model of mmdetection."""
    c = a.channels
    shapes = resnet(a, "backbone.")
    shapes |= {name.replace("weight", "num_batches_tracked"): () for name in shapes if "bn1.weight" in name}
    for i in range(3):
        shapes |= convolution(f"neck.lateral_convs.{i}.conv", c, 512 * 2**i, 1)
    for i in range(5):
        shapes |= convolution(f"neck.fpn_convs.{i}.conv", c, c)
    for tower in ("cls_convs", "reg_convs"):
        for i in range(4):
            shapes |= convolution(f"bbox_head.{tower}.{i}.conv", c, c, bias=False)
            shapes |= {f"bbox_head.{tower}.{i}.gn.{s}": (c,) for s in ("weight", "bias")}
    if gfl:
        shapes |= convolution("bbox_head.gfl_cls", classes, c) | convolution("bbox_head.gfl_reg", 4 * 17, c)
        shapes |= {"bbox_head.integral.project": (17,)}
    else:
        shapes |= convolution("bbox_head.atss_cls", classes, c) | convolution("bbox_head.atss_reg", 4, c)
        shapes |= convolution("bbox_head.atss_centerness", 1, c)
    shapes |= {f"bbox_head.scales.{i}.scale": () for i in range(5)}
    names = [f"thing {i}" for i in range(classes)]
    meta = {"CLASSES": tuple(names)} if version == 2 else {"dataset_meta": {"classes": tuple(names)}}
    return {"meta": meta, "state_dict": filled(shapes, light)}


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
