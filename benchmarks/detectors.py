"""This project's detector beside Detectron2's RetinaNet and FCOS: R-50, random weights, and random images for them."""

import importlib.util
from pathlib import Path

import torch
from detectron2.config import get_cfg
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_backbone, build_model
from detectron2.structures import Boxes, Instances
from torch import nn

from assigner import random_boxes
from atss import add_atss_config

CONFIG = str(Path(__file__).parents[1] / "configs/atss_R_50_FPN_1x.yaml")
STRIDES = (8, 16, 32, 64, 128)
NAMES = ("atss", "retinanet", "fcos")


def is_available(name):
    """Whether this version of Detectron2 has a detector, one of NAMES: FCOS is younger than the others."""
    return name != "fcos" or importlib.util.find_spec("detectron2.modeling.meta_arch.fcos") is not None


def build(name, num_classes=80, device="cpu"):
    """A detector by name, one of NAMES, with the config of its R-50 1x model and random weights."""
    cfg = get_cfg()
    add_atss_config(cfg)
    cfg.merge_from_file(CONFIG)
    cfg.MODEL.DEVICE, cfg.MODEL.WEIGHTS = str(device), ""
    cfg.MODEL.ATSS.NUM_CLASSES = cfg.MODEL.RETINANET.NUM_CLASSES = num_classes
    torch.manual_seed(0)
    if name == "fcos":
        return build_fcos(build_backbone(cfg), num_classes).to(device)
    if name == "retinanet":
        cfg.MODEL.META_ARCHITECTURE = "RetinaNet"
        cfg.MODEL.BACKBONE.NAME = "build_retinanet_resnet_fpn_backbone"
        cfg.MODEL.ANCHOR_GENERATOR.SIZES = [[4 * stride * 2 ** (i / 3) for i in range(3)] for stride in STRIDES]
    return build_model(cfg)


def build_fcos(backbone, num_classes):
    """FCOS with the settings of Detectron2's model zoo, and losses in float32: they do not take mixed precisions."""
    from detectron2.modeling.meta_arch import fcos

    class FCOS(fcos.FCOS):
        def forward_training(self, images, features, predictions, instances):
            in_full = [[values.float() for values in maps] for maps in predictions]
            return super().forward_training(images, features, in_full, instances)

    def group_norm(channels):
        return nn.GroupNorm(min(32, channels), channels)  # the head also asks for the norm of one channel

    shapes = [ShapeSpec(channels=256)] * len(STRIDES)
    return FCOS(
        backbone=backbone,
        head=fcos.FCOSHead(
            input_shape=shapes, num_classes=num_classes, conv_dims=[256] * 4, prior_prob=0.01, norm=group_norm
        ),
        head_in_features=["p3", "p4", "p5", "p6", "p7"],
        num_classes=num_classes,
        test_score_thresh=0.2,
        test_nms_thresh=0.6,
        pixel_mean=[103.53, 116.28, 123.675],
        pixel_std=[1.0, 1.0, 1.0],
    )


def random_batch(num_images, size, num_objects, num_classes, seed=0):
    """Images (3, H, W) of random pixels in Detectron2's form, with objects of 8 to 400 pixels.

    Args:
        num_images: N.
        size: (height, width) in pixels.
        num_objects: per image.
        num_classes: of the objects.
    """
    batch, (height, width) = [], size
    for i, boxes in enumerate(random_boxes(num_images, num_objects, height, width, seed, "cpu")):
        instances = Instances((height, width))
        instances.gt_boxes = Boxes(boxes)
        instances.gt_boxes.clip((height, width))
        generator = torch.Generator().manual_seed(seed + i)
        instances.gt_classes = torch.randint(num_classes, (num_objects,), generator=generator)
        image = torch.randint(256, (3, height, width), generator=generator, dtype=torch.uint8)
        batch.append({"image": image, "height": height, "width": width, "instances": instances})
    return batch


def parts(model, images, features, instances):
    """Two functions of what the head returns: its losses, and the detections.

    Args:
        model: a detector.
        images: `ImageList`.
        features: feature maps of the head.
        instances: ground truth of each image.
    """
    if hasattr(model.head, "losses"):
        boxes, classes = [x.gt_boxes.tensor for x in instances], [x.gt_classes for x in instances]
        return (
            lambda predictions: model.head.losses(*predictions, boxes, classes),
            lambda predictions: model.head.detect(*predictions, images.image_sizes),
        )
    return (
        lambda predictions: model.forward_training(images, features, predictions, instances),
        lambda predictions: model.forward_inference(images, features, predictions),
    )


def wrap_assignment(model, context):
    """Have the label assignment of a detector run inside of a context."""
    owner, name = (model.head, "assigner") if hasattr(model.head, "assigner") else (model, "label_anchors")
    assign = getattr(owner, name)

    def assign_in_context(*args):
        with context:
            return assign(*args)

    object.__setattr__(owner, name, assign_in_context)
