"""The meta-architecture: images -> backbone -> head -> losses or instances."""

import math
from functools import cache

import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY, build_backbone
from detectron2.structures import Boxes, ImageList, Instances
from torch import Tensor, nn

from ..errors import InputError
from .anchors import AnchorGrid
from .backbones.dyhead import DyHead
from .backbones.frozen_norm import fold_frozen_norms
from .head import ATSS_HEAD_REGISTRY, Predictions
from .inference import Detections, resize_boxes


@META_ARCH_REGISTRY.register()
class ATSS(nn.Module):
    """One-stage detector with adaptive training sample selection (arXiv 1912.02424).

    Args:
        backbone: a Detectron2 backbone.
        head: see `ATSS_HEAD_REGISTRY`.
        in_features: names of the head's input feature maps, finest first.
        pixel_mean, pixel_std: one value per channel; images are normalised to (x - mean) / std.
        neck: module from the feature maps, finest first, to those of the head, such as `DyHead`; None for none.
        size_divisibility: images are padded to multiples of this, too, in pixels.
        channels_last: True for feature maps whose channels lie next to each other in memory.
        compiled: True to compile backbone and head with `torch.compile`, for images of any size.
    """

    @configurable
    def __init__(
        self, *, backbone, head, in_features, pixel_mean, pixel_std, neck=None, size_divisibility=1,
        channels_last=True, compiled=False,
    ):  # fmt: skip
        super().__init__()
        self.backbone = fold_frozen_norms(backbone)
        self.neck = nn.Identity() if neck is None else neck
        self.head = head
        self.in_features = list(in_features)
        self.size_divisibility = math.lcm(max(backbone.size_divisibility, 1), size_divisibility)
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.compiled = compiled
        self.register_buffer("pixel_mean", torch.tensor(pixel_mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(pixel_std).view(-1, 1, 1), persistent=False)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        if cfg.MODEL.ATSS.NUM_CLASSES < 1:
            raise InputError(
                f"MODEL.ATSS.NUM_CLASSES is {cfg.MODEL.ATSS.NUM_CLASSES}: set it to the number of classes, or load the "
                "config with atss.config.load_config, which takes it from the dataset"
            )
        backbone = build_backbone(cfg)
        shapes = backbone.output_shape()
        in_features = cfg.MODEL.ATSS.IN_FEATURES
        shapes = [shapes[name] for name in in_features]
        return {
            "backbone": backbone,
            "neck": DyHead(cfg, shapes) if cfg.MODEL.ATSS.DYHEAD_BLOCKS else None,
            "head": ATSS_HEAD_REGISTRY.get(cfg.MODEL.ATSS.HEAD)(cfg, shapes),
            "in_features": in_features,
            "size_divisibility": cfg.MODEL.ATSS.SIZE_DIVISIBILITY,
            "pixel_mean": cfg.MODEL.PIXEL_MEAN,
            "pixel_std": cfg.MODEL.PIXEL_STD,
            "channels_last": cfg.MODEL.ATSS.CHANNELS_LAST,
            "compiled": cfg.MODEL.ATSS.COMPILE,
        }

    @property
    def device(self) -> torch.device:
        return self.pixel_mean.device

    def forward(self, batched_inputs: list[dict]) -> dict[str, Tensor] | list[dict[str, Instances]]:
        """Compute losses in training, detections otherwise, in Detectron2's format.

        Args:
            batched_inputs: list of N dicts with `image`, a (3, H, W) tensor in the order of INPUT.FORMAT from 0 to 255;
                in training `instances` with `gt_boxes` and `gt_classes` and, optionally, `ignore_boxes`, a (K, 4)
                tensor of regions without loss; at inference, optionally, `height` and `width` of the output.

        Returns:
            in training a dict of scalar losses; at inference a list of N dicts with `instances`, whose fields are
            `pred_boxes`, `scores` and `pred_classes`.
        """
        if self.training:
            return self.losses(batched_inputs)
        images, grid, predictions = self.predict(batched_inputs)
        detections = self.head.detect(grid, predictions, images.image_sizes)
        return [
            {"instances": self.to_instances(found, size, (x.get("height", size[0]), x.get("width", size[1])))}
            for found, size, x in zip(detections, images.image_sizes, batched_inputs, strict=True)
        ]

    def losses(self, batched_inputs: list[dict]) -> dict[str, Tensor]:
        """The losses of images with ground truth, see `forward`; also in evaluation mode, for validation."""
        _, grid, predictions = self.predict(batched_inputs)
        instances = [x["instances"] for x in batched_inputs]
        gt_boxes = [moved(x.gt_boxes.tensor, self.device) for x in instances]
        gt_classes = [moved(x.gt_classes, self.device) for x in instances]
        return self.head.losses(grid, predictions, gt_boxes, gt_classes, self.ignore_boxes(batched_inputs))

    def predict(self, batched_inputs: list[dict]) -> tuple[ImageList, AnchorGrid, Predictions]:
        """Run backbone and head: the padded images, the anchors of their feature maps, and the predictions."""
        images = self.preprocess(batched_inputs)
        run = compiled_network() if self.compiled else network
        return images, *run(self, images.tensor)

    def to_instances(self, detections: Detections, image_size: tuple[int, int], size: tuple[int, int]) -> Instances:
        """Convert detections in an image of `image_size` (height, width) to Detectron2's instances at `size`."""
        boxes = resize_boxes(detections.boxes, image_size, size, self.head.box_coding.pixel_extent)
        return Instances(size, pred_boxes=Boxes(boxes), scores=detections.scores, pred_classes=detections.classes)

    def ignore_boxes(self, batched_inputs: list[dict]) -> list[Tensor] | None:
        """Regions without loss, one (K_i, 4) tensor per image; None if no image has any."""
        if not any("ignore_boxes" in x for x in batched_inputs):
            return None
        none = torch.empty(0, 4)
        return [moved(x.get("ignore_boxes", none), self.device) for x in batched_inputs]

    def preprocess(self, batched_inputs: list[dict]) -> ImageList:
        """Normalise the images and pad them to a common size, a multiple of `size_divisibility`."""
        sizes = [tuple(x["image"].shape[-2:]) for x in batched_inputs]
        multiple = self.size_divisibility
        shape = [-(-max(sides) // multiple) * multiple for sides in zip(*sizes, strict=True)]
        mean, shape = self.pixel_mean, (len(sizes), len(self.pixel_mean), *shape)
        padded = torch.empty(shape, dtype=mean.dtype, device=self.device, memory_format=self.memory_format).zero_()
        for x, (height, width), into in zip(batched_inputs, sizes, padded, strict=True):
            into = into[:, :height, :width]
            torch.sub(moved(x["image"], self.device), mean, out=into).div_(self.pixel_std)
        return ImageList(padded, sizes)


def network(detector: ATSS, images: Tensor) -> tuple[AnchorGrid, Predictions]:
    """Backbone, neck and head of a detector: padded images (N, 3, H, W) -> the anchors and their predictions."""
    features = detector.backbone(images)
    return detector.head(detector.neck([features[name] for name in detector.in_features]))


@cache
def compiled_network():
    """`network`, compiled for images of any number and size: not at all before the first call, which takes minutes."""
    return torch.compile(network, dynamic=True)


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on a device. A GPU copies it in its own time, while the host goes on."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
