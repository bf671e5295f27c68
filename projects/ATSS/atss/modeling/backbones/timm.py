"""Feature pyramids over models of timm (https://github.com/huggingface/pytorch-image-models), an optional package."""

import copy
import difflib
import logging
import math
import re
from typing import NamedTuple

import numpy as np
import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from detectron2.modeling.backbone import FPN
from torch import Tensor, nn

from ...errors import InputError, first_line
from .fpn import with_fpn
from .swin import pad_before_shift

logger = logging.getLogger(__name__)

# Arguments by which models that are built for one size of images take others, too.
ANY_SIZE = (
    {"dynamic_img_size": True, "always_partition": True},
    {"dynamic_img_size": True},
    {"strict_img_size": False, "always_partition": True},
    {"strict_img_size": False},
)
# Channels of the simple feature pyramid, as a fraction of those of the transformer (ViTDet, section 3).
PLAIN_DIVISORS = {"res2": 4, "res3": 2, "res4": 1, "res5": 1}


class Stage(NamedTuple):
    """A feature map of a model."""

    index: int  # among the feature maps that timm knows
    module: str  # name of the module that computes it; in a plain transformer, of its first block
    channels: int


@BACKBONE_REGISTRY.register()
def build_timm_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """A model of timm and FPN with outputs p3 to p7.

    Args:
        cfg: reads MODEL.TIMM, MODEL.FPN, MODEL.BACKBONE.FREEZE_AT and MODEL.ATSS.RELU_BEFORE_P7. Weights that
            MODEL.WEIGHTS names will replace timm's, which are then not loaded.
        input_shape: of the image.

    Raises:
        InputError: timm is not installed, has no such model, cannot load its weights, or the model cannot be used.
    """
    warn_of_statistics(cfg)
    return with_fpn(cfg, TimmBackbone(cfg, input_shape))


def warn_of_statistics(cfg):
    """Warn of images that differ from those of timm's weights, as in a config that `load_config` has not loaded."""
    given = {"MODEL.PIXEL_MEAN": cfg.MODEL.PIXEL_MEAN, "MODEL.PIXEL_STD": cfg.MODEL.PIXEL_STD}
    expected = input_of(cfg.MODEL.TIMM.NAME, cfg.INPUT.FORMAT)
    wrong = {key: expected[key] for key, values in given.items() if not np.allclose(values, expected[key], rtol=1e-3)}
    if wrong:
        logger.warning(
            "%s has been trained with other images: %s with INPUT.FORMAT %s. atss.config.load_config sets them.",
            cfg.MODEL.TIMM.NAME, " and ".join(f"{key} {values}" for key, values in wrong.items()), cfg.INPUT.FORMAT,
        )  # fmt: skip


class TimmBackbone(Backbone):
    """Feature maps of strides 4 to 32 of a model of timm, named res2 to res5 as those of ResNets.

    A plain vision transformer, whose feature maps all have stride 16, gets the simple feature pyramid of ViTDet (Li et
    al. 2022, section 3). Parameters of the model have timm's names behind `model.`.

    Args:
        name: of the model, with or without the tag of its weights: "resnet18", "convnext_tiny.fb_in22k".
        out_features: which of res2 to res5 to compute, finest first.
        pretrained: True to load timm's weights, which it downloads unless it has done so before.
        file: file of these weights, to load without network; "" for none.
        drop_path_rate: highest probability with which a training step skips a residual branch.
        activation_checkpointing: True to compute activations again in the backward pass instead of storing them.
        freeze_norm: True to freeze all batch normalizations.
        freeze_at: 0 to train all layers, 1 to freeze the stem, n the stages up to res<n>, too.
        norm_features: True to normalise each output feature map (layer normalization over channels), as the detectors
            of Swin Transformer and ConvNeXt do.
        in_channels: channels of the image.

    Raises:
        InputError: see `build_timm_fpn_backbone`.
    """

    @configurable
    def __init__(
        self, name, out_features, *, pretrained=False, file="", drop_path_rate=0.0, activation_checkpointing=False,
        freeze_norm=False, freeze_at=0, norm_features=False, in_channels=3,
    ):  # fmt: skip
        super().__init__()
        options = {"in_chans": in_channels, **({"drop_path_rate": drop_path_rate} if drop_path_rate else {})}
        model = create(name, options)
        stages = stages_of(name, model)
        check_maps(name, model, stages, in_channels)
        missing = [feature for feature in out_features if feature not in stages]
        if missing:
            raise InputError(
                f"MODEL.FPN.IN_FEATURES: {name} has no {', '.join(missing)}; its feature maps are {', '.join(stages)}"
            )
        if pretrained or file:
            model = load(name, options, file)
        if activation_checkpointing:
            checkpoint_activations(name, model)
        freeze(model, stages, freeze_at, freeze_norm)
        pad_before_shift(model)

        self._out_features = list(out_features)
        self._out_feature_strides = {feature: stride_of(feature) for feature in out_features}
        self._out_feature_channels = {feature: stages[feature].channels for feature in out_features}
        indices = sorted({stages[feature].index for feature in out_features})
        # Without the layers behind the last feature map, whose parameters would never get a gradient.
        self.indices = model.prune_intermediate_layers(indices, prune_norm=True)
        self.model = model
        self.pyramid = nn.ModuleDict()
        if is_plain(model):
            self.pyramid.update({feature: rescaled(stages[feature].channels, feature) for feature in out_features})
        self.norms = nn.ModuleDict()
        if norm_features:
            self.norms.update({feature: layer_norm(stages[feature].channels) for feature in out_features})

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: ShapeSpec) -> dict:
        timm = cfg.MODEL.TIMM
        return {
            "name": timm.NAME,
            "out_features": cfg.MODEL.FPN.IN_FEATURES,
            "pretrained": timm.PRETRAINED and not cfg.MODEL.WEIGHTS,
            "file": "" if cfg.MODEL.WEIGHTS else timm.FILE,
            "drop_path_rate": timm.DROP_PATH_RATE,
            "activation_checkpointing": timm.ACTIVATION_CHECKPOINTING,
            "freeze_norm": timm.FREEZE_NORM,
            "freeze_at": cfg.MODEL.BACKBONE.FREEZE_AT,
            "norm_features": timm.NORM_FEATURES,
            "in_channels": input_shape.channels,
        }

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Images (N, 3, H, W), whose sides the largest stride divides -> feature maps (N, C_l, H_l, W_l) by name."""
        maps = self.model.forward_intermediates(x, indices=self.indices, intermediates_only=True)
        if self.pyramid:
            maps = [layer(maps[-1]) for layer in self.pyramid.values()]
        features = dict(zip(self._out_features, maps, strict=True))
        return {name: self.norms[name](x) if self.norms else x for name, x in features.items()}

    def depths(self) -> dict[nn.Parameter, int]:
        """How many layers from the end of the model each of its parameters is: 1 in the last layer (timm's groups).

        Raises:
            InputError: timm does not tell the layers of the model.
        """
        from timm.models import group_parameters

        if not hasattr(self.model, "group_matcher"):
            raise InputError("SOLVER.LAYER_DECAY: timm does not tell the layers of MODEL.TIMM.NAME; set it to 1.0")
        layers = group_parameters(self.model, self.model.group_matcher(coarse=False), reverse=True)
        num_layers = 1 + max(layers.values())
        return {parameter: num_layers - layers[name] for name, parameter in self.model.named_parameters()}

    def without_weight_decay(self) -> set[nn.Parameter]:
        """Parameters that are never to decay: position tables and such, which timm names, and layer scales."""
        keys = {"gamma", *(self.model.no_weight_decay() if hasattr(self.model, "no_weight_decay") else ())}
        return {p for name, p in self.model.named_parameters() if any(key in name for key in keys)}


def record_of(name: str):
    """timm's record of a model and its weights (`timm.models.PretrainedCfg`).

    Raises:
        InputError: timm is not installed, or has no such model; the message has the three nearest names.
    """
    try:
        import timm
    except ImportError:
        raise InputError("MODEL.BACKBONE.NAME build_timm_fpn_backbone needs timm: pip install -e .[timm]") from None
    try:
        if timm.is_model(name):
            return timm.models.get_pretrained_cfg(name) or timm.models.PretrainedCfg()
    except RuntimeError:  # a model without these weights
        pass
    nearest = difflib.get_close_matches(name, {*timm.list_models(), *timm.list_pretrained()}, n=3, cutoff=0.0)
    raise InputError(f"MODEL.TIMM.NAME: timm has no model {name!r}; the nearest are {', '.join(nearest)}")


def input_of(name: str, format: str = "RGB") -> dict[str, object]:
    """Config keys and values for the images that a model of timm has been trained with, from 0 to 255.

    Args:
        name: of the model.
        format: order of the channels: "RGB", as in all of timm, or "BGR".

    Raises:
        InputError: see `record_of`.
    """
    record, step = record_of(name), 1 if format == "RGB" else -1
    mean, std = ([round(255 * value, 4) for value in values][::step] for values in (record.mean, record.std))
    return {"INPUT.FORMAT": format, "MODEL.PIXEL_MEAN": mean, "MODEL.PIXEL_STD": std}


def create(name, options, **weights):
    """The model with random weights, or with `weights` of timm; for images of any size if it has an option for that."""
    sizes = (*ANY_SIZE, {}) if record_of(name).fixed_input_size else ({},)
    import timm

    for size in sizes:
        try:
            return timm.create_model(name, **options, **size, **weights)
        except TypeError as error:
            if "drop_path_rate" in str(error):
                raise InputError(f"MODEL.TIMM.DROP_PATH_RATE: {name} has no paths to drop; set it to 0.0") from error
            if not any(key in str(error) for key in size):
                raise
    raise AssertionError("unreachable: the last one has no options for the size")


def load(name, options, file):
    """The model with the weights of a file, or else timm's, all of them."""
    record = record_of(name)
    if not (file or record.has_weights):
        raise InputError(f"MODEL.TIMM.PRETRAINED: timm has no weights of {name}; set it to False")
    try:
        # The classifier is kept: timm then checks that the weights are those of the model.
        return create(name, options, pretrained=True, pretrained_cfg_overlay={"file": file} if file else None)
    except Exception as error:  # of the network, the file system or the file
        # The second line of torch's message names the keys.
        reason = " ".join(str(error).split("\n")[1:2]).strip() if "state_dict" in str(error) else first_line(error)
        reason = reason if len(reason) < 200 else f"{reason[:200]}..."
        if file:
            raise InputError(f"MODEL.TIMM.FILE {file}: does not give the weights of {name} ({reason})") from error
        url = f"https://huggingface.co/{record.hf_hub_id}" if record.hf_hub_id else record.url
        raise InputError(
            f"MODEL.TIMM.PRETRAINED: the weights of {name} cannot be downloaded ({reason}); fetch the file "
            f"{'model.safetensors of ' if record.hf_hub_id else ''}{url} where there is a network, and give its path: "
            "MODEL.TIMM.FILE path/to/file"
        ) from error


def stages_of(name, model):
    """The feature maps of a model as `Stage` by name, res2 to res5 as far as it has them, finest first.

    Raises an InputError if it has none of these.
    """
    if not (hasattr(model, "forward_intermediates") and getattr(model, "feature_info", None)):
        raise InputError(f"MODEL.TIMM.NAME: {name} gives no feature maps; choose another model")
    found = {}
    for index, info in enumerate(model.feature_info):
        # The last one of those with the same stride.
        found[info["reduction"]] = Stage(index, info["module"], info["num_chs"])
    if is_plain(model):
        index, _, channels = found[16]
        module = model.feature_info[0]["module"]
        return {name: Stage(index, module, channels // divisor) for name, divisor in PLAIN_DIVISORS.items()}
    stages = {f"res{int(math.log2(stride))}": found[stride] for stride in (4, 8, 16, 32) if stride in found}
    if not stages:
        strides = ", ".join(map(str, found))
        raise InputError(f"MODEL.TIMM.NAME: {name} gives no feature maps of strides 4 to 32, but of {strides}")
    return stages


def check_maps(name, model, stages, in_channels):
    """Raise an InputError unless the model takes images of any size, with feature maps of exact strides."""
    image = torch.empty(1, in_channels, 128, 192, device="meta")
    try:
        maps = copy.deepcopy(model).to("meta").eval().forward_intermediates(image, intermediates_only=True)
    except Exception as error:  # whatever the model raises
        raise InputError(f"MODEL.TIMM.NAME: {name} does not take images of any size; choose another model") from error
    for feature, stage in stages.items():
        stride, (height, width) = 16 if is_plain(model) else stride_of(feature), maps[stage.index].shape[2:]
        if (height * stride, width * stride) != (128, 192):
            raise InputError(f"MODEL.TIMM.NAME: feature maps of {name} have no fixed stride; choose another model")


def stride_of(feature):
    """Stride of res2 and so on."""
    return 2 ** int(feature[3:])


def is_plain(model):
    """Whether all feature maps have stride 16, as those of a plain vision transformer with patches of that size."""
    return {info["reduction"] for info in model.feature_info} == {16}


def rescaled(channels, feature):
    """Layers from a feature map of stride 16 to one of res2 to res5 with `channels` channels (ViTDet, section 3)."""
    if feature == "res2":
        between = layer_norm(2 * channels), nn.GELU()
        return nn.Sequential(doubled(4 * channels, 2 * channels), *between, doubled(2 * channels, channels))
    if feature == "res3":
        return doubled(2 * channels, channels)
    return nn.Identity() if feature == "res4" else nn.MaxPool2d(2)


def doubled(in_channels, out_channels):
    """Transposed convolution to twice the height and width."""
    return nn.ConvTranspose2d(in_channels, out_channels, 2, stride=2)


def layer_norm(channels):
    """Normalization over the channels of a feature map (N, channels, H, W)."""
    from timm.layers import LayerNorm2d

    return LayerNorm2d(channels)


def checkpoint_activations(name, model):
    try:
        model.set_grad_checkpointing(True)
    except (AssertionError, AttributeError):
        raise InputError(f"MODEL.TIMM.ACTIVATION_CHECKPOINTING: {name} does not have it; set it to False") from None


def freeze(model, stages, freeze_at, freeze_norm):
    """Freeze the stem and the stages up to res<freeze_at>, and their batch normalizations, or those of all layers.

    Modules are registered in the order in which images pass them.
    """
    from timm.layers import freeze_batch_norm_2d

    modules = dict(model.named_modules())
    names, end = list(modules), 0
    if freeze_at and not all(stage.module in modules for stage in stages.values()):
        raise InputError("MODEL.BACKBONE.FREEZE_AT: timm does not tell the stages of MODEL.TIMM.NAME; set it to 0")
    if freeze_at == 1:
        module = next(iter(stages.values())).module
        first = re.match(r"\D*\d*[^.]*", module)[0]  # "blocks.1" of "blocks.1.1.conv_pwl"
        end = names.index(first)
    elif freeze_at > 1:
        if f"res{freeze_at}" not in stages or is_plain(model):
            known = ["0", "1", *([] if is_plain(model) else (feature[3:] for feature in stages))]
            raise InputError(f"MODEL.BACKBONE.FREEZE_AT: expected one of {', '.join(known)}, got {freeze_at}")
        last = stages[f"res{freeze_at}"].module
        end = 1 + max(i for i, name in enumerate(names) if name == last or name.startswith(f"{last}."))
    for name in names[:end]:
        for parameter in modules[name].parameters(recurse=False):
            parameter.requires_grad_(False)
    for name in names if freeze_norm else names[:end]:
        if isinstance(modules[name], nn.modules.batchnorm._BatchNorm):
            model.set_submodule(name, freeze_batch_norm_2d(modules[name]))
