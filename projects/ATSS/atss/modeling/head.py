"""The head: two towers over five feature maps, three predictions an anchor, three losses or a list of boxes."""

import inspect
import math
from typing import NamedTuple

import torch
from detectron2.config import configurable
from detectron2.layers import Conv2d, get_norm
from detectron2.utils.registry import Registry
from torch import nn
from torch.nn import functional as F

from .anchors import AnchorGrid, make_cell_anchors
from .assigners import ASSIGNER_REGISTRY, IGNORED
from .backbones.deformable import DeformableConv2d, ModulatedDeformConv
from .box_coding import BoxCoding, PointCoding
from .inference import BoxSelector
from .losses import centerness_targets, focal_loss, giou_loss, normalizers, smooth_l1_loss

ATSS_HEAD_REGISTRY = Registry("ATSS_HEAD")
ATSS_HEAD_REGISTRY.__doc__ = """
Heads of ATSS, called as `head(features)` and, with what that gives, `head.losses(...)` or `head.detect(...)`; made by
`HEAD(cfg, input_shape)`, where `input_shape` lists the `ShapeSpec` of every level.
"""


class Predictions(NamedTuple):
    """What the head says of the R anchors of N images.

    logits: (N, R, C), class scores before the sigmoid.
    deltas: (N, R, 4), boxes in the head's box coding.
    centerness: (N, R), before the sigmoid, or None of a head without it.
    """

    logits: torch.Tensor
    deltas: torch.Tensor
    centerness: torch.Tensor | None


@ATSS_HEAD_REGISTRY.register()
class ATSSHead(nn.Module):
    """Head of the paper (section 3.1): RetinaNet's towers with GroupNorm, centerness and a scalar a level.

    Without these and with smooth L1 it is RetinaNet's (Table 1).

    Args:
        in_channels: channels of every feature map, and of the towers.
        strides: stride of every level, in pixels.
        num_classes: C.
        cell_anchors: one (A, 4) tensor a level, see `AnchorGrid`.
        anchor_offset: where a cell's centre lies, in strides.
        assigner: chooses positives, see `atss.assigners`.
        box_coding: `BoxCoding` or `PointCoding`.
        box_selector: chooses the boxes of an image at inference.
        num_convs: 3x3 convolutions per tower.
        norm: normalisation after each, a name of Detectron2's ("GN"), "" for none.
        deformable: True to make the last convolution of each tower a deformable one (the paper's DCNv2 models).
        centerness: True to predict it; then it weighs boxes in their loss and in their score.
        level_scalars: True for a learnable factor of the box prediction a level.
        prior_prob: score that every class starts from.
        focal_loss_alpha, focal_loss_gamma: see `focal_loss`.
        box_loss: "giou" of the decoded boxes, or "smooth_l1" of the deltas.
        box_loss_weight: factor of the box loss.
        smooth_l1_beta: where smooth L1 turns from square to linear.

    Raises:
        ValueError: a `box_loss` that does not exist.
    """

    @configurable
    def __init__(
        self,
        *,
        in_channels,
        strides,
        num_classes,
        cell_anchors,
        anchor_offset,
        assigner,
        box_coding,
        box_selector,
        num_convs=4,
        norm="GN",
        deformable=False,
        centerness=True,
        level_scalars=True,
        prior_prob=0.01,
        focal_loss_alpha=0.25,
        focal_loss_gamma=2.0,
        box_loss="giou",
        box_loss_weight=2.0,
        smooth_l1_beta=0.11,
    ):
        super().__init__()
        if box_loss not in ("giou", "smooth_l1"):
            raise ValueError(f"box_loss: expected 'giou' or 'smooth_l1', got {box_loss!r}")
        self.strides = list(strides)
        self.num_classes = num_classes
        self.anchor_offset = anchor_offset
        self.assigner = assigner
        self.box_coding = box_coding
        self.box_selector = box_selector
        self.focal_loss_alpha = focal_loss_alpha
        self.focal_loss_gamma = focal_loss_gamma
        self.box_loss = box_loss
        self.box_loss_weight = box_loss_weight
        self.smooth_l1_beta = smooth_l1_beta
        for level, anchors in enumerate(cell_anchors):
            self.register_buffer(f"cell_anchors_{level}", anchors, persistent=False)

        num_anchors = len(cell_anchors[0])
        self.class_tower = self._tower(in_channels, num_convs, norm, deformable)
        self.box_tower = self._tower(in_channels, num_convs, norm, deformable)
        self.class_logits = nn.Conv2d(in_channels, num_anchors * num_classes, 3, padding=1)
        self.box_deltas = nn.Conv2d(in_channels, num_anchors * 4, 3, padding=1)
        self.centerness = nn.Conv2d(in_channels, num_anchors, 3, padding=1) if centerness else None
        self.scales = nn.Parameter(torch.ones(len(self.strides))) if level_scalars else None

        for module in self.modules():
            if isinstance(module, (nn.Conv2d, ModulatedDeformConv)):
                nn.init.normal_(module.weight, std=0.01)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.constant_(self.class_logits.bias, -math.log((1 - prior_prob) / prior_prob))
        nn.init.constant_(self.box_deltas.bias, box_coding.initial_bias)

    @classmethod
    def from_config(cls, cfg, input_shape):
        atss = cfg.MODEL.ATSS
        strides = [shape.stride for shape in input_shape]
        if atss.BOX_CODING == "box":
            box_coding = BoxCoding(atss.BOX_CODING_WEIGHTS, atss.PIXEL_EXTENT)
        else:
            box_coding = PointCoding(atss.ANCHOR_SCALE, atss.PIXEL_EXTENT)
        return {
            "in_channels": input_shape[0].channels,
            "strides": strides,
            "num_classes": atss.NUM_CLASSES,
            "cell_anchors": make_cell_anchors(strides, atss.ANCHOR_SCALE, atss.ASPECT_RATIOS, atss.SCALES_PER_OCTAVE),
            "anchor_offset": atss.ANCHOR_OFFSET,
            "assigner": build_assigner(cfg),
            "box_coding": box_coding,
            "box_selector": BoxSelector(
                score_threshold=atss.SCORE_THRESH_TEST,
                topk_per_level=atss.TOPK_CANDIDATES_TEST,
                nms_threshold=atss.NMS_THRESH_TEST,
                max_detections=cfg.TEST.DETECTIONS_PER_IMAGE,
                topk_by_centerness=atss.TOPK_BY_CENTERNESS,
                score_root=atss.SCORE_ROOT,
            ),
            "num_convs": atss.NUM_CONVS,
            "norm": atss.NORM,
            "deformable": atss.USE_DCN_IN_TOWER,
            "centerness": atss.CENTERNESS,
            "level_scalars": atss.LEVEL_SCALARS,
            "prior_prob": atss.PRIOR_PROB,
            "focal_loss_alpha": atss.FOCAL_LOSS_ALPHA,
            "focal_loss_gamma": atss.FOCAL_LOSS_GAMMA,
            "box_loss": atss.BOX_LOSS,
            "box_loss_weight": atss.BOX_LOSS_WEIGHT,
            "smooth_l1_beta": atss.SMOOTH_L1_BETA,
        }

    @staticmethod
    def _tower(channels, num_convs, norm, deformable):
        after = [{"norm": get_norm(norm, channels), "activation": F.relu} for _ in range(num_convs)]
        layers = [Conv2d(channels, channels, 3, padding=1, **options) for options in after]
        if deformable:
            layers[-1] = DeformableConv2d(channels, channels, **after[-1])
        return nn.Sequential(*layers)

    def forward(self, features):
        """Predict from the feature maps of every level.

        Args:
            features: list of (N, in_channels, H_l, W_l), finest level first.

        Returns:
            the `AnchorGrid` of these feature maps, and the `Predictions` for its anchors.
        """
        logits, deltas, centerness = [], [], []
        for level, feature in enumerate(features):
            box_feature = self.box_tower(feature)
            logits.append(by_anchor(self.class_logits(self.class_tower(feature)), self.num_classes))
            box_delta = self.box_deltas(box_feature)
            deltas.append(by_anchor(box_delta if self.scales is None else box_delta * self.scales[level], 4))
            if self.centerness is not None:
                centerness.append(by_anchor(self.centerness(box_feature), 1).squeeze(-1))
        joined = (full_precision(torch.cat(p, dim=1)) if p else None for p in (logits, deltas, centerness))
        predictions = Predictions(*joined)
        return self.grid([feature.shape[-2:] for feature in features]), predictions

    def grid(self, shapes):
        """The `AnchorGrid` for feature maps of these (H, W)."""
        cell_anchors = [getattr(self, f"cell_anchors_{level}") for level in range(len(self.strides))]
        return AnchorGrid(shapes, self.strides, cell_anchors, self.anchor_offset)

    def losses(self, grid, predictions, gt_boxes, gt_classes, ignore_boxes=None):
        """The losses of a batch (section 3.1, section 4.1).

        Args:
            grid, predictions: what `forward` gave.
            gt_boxes: list of N tensors (G_i, 4), x1 y1 x2 y2 in pixels.
            gt_classes: list of N int64 tensors (G_i,).
            ignore_boxes: regions without loss for anchors that match nothing, like `gt_boxes`, or None.

        Returns:
            dict of scalars: `loss_cls`, `loss_box` and, with centerness, `loss_centerness`, averaged so that they add
            up over processes. Without centerness all positives weigh the same in `loss_box`.

        Raises:
            TypeError, ValueError: an argument that does not fit, by name.
        """
        check_predictions(predictions, grid, gt_boxes, gt_classes)
        # Where the last pixel ends a box, its centre is half a pixel less.
        shift = self.box_coding.pixel_extent / 2
        matches = self.assigner(grid, shifted(gt_boxes, shift), shifted(ignore_boxes, shift))
        positive, anchors = matches >= 0, grid.boxes()
        boxes, classes = matched_objects(matches, gt_boxes, gt_classes, anchors)
        weights = torch.ones_like(positive, dtype=anchors.dtype)
        if self.centerness is not None:
            weights = centerness_targets((anchors[:, :2] + anchors[:, 2:]) / 2 + shift, boxes)
        num_positive, sum_of_weights = normalizers(positive, weights)

        loss_cls = focal_loss(
            predictions.logits,
            classes,
            positive,
            valid=matches != IGNORED,
            alpha=self.focal_loss_alpha,
            gamma=self.focal_loss_gamma,
        )
        loss_box = (self.box_losses(predictions.deltas, boxes, anchors) * weights * positive).sum() / sum_of_weights
        losses = {"loss_cls": loss_cls / num_positive, "loss_box": loss_box * self.box_loss_weight}
        if self.centerness is not None:
            loss = F.binary_cross_entropy_with_logits(predictions.centerness, weights, reduction="none")
            losses["loss_centerness"] = (loss * positive).sum() / num_positive
        return losses

    def box_losses(self, deltas, boxes, anchors):
        """Loss of the box of every anchor: `deltas` and `boxes` (N, R, 4), `anchors` (R, 4) -> (N, R)."""
        if self.box_loss == "giou":
            return giou_loss(self.box_coding.decode(deltas, anchors), boxes)
        return smooth_l1_loss(deltas, self.box_coding.encode(boxes, anchors), self.smooth_l1_beta)

    def detect(self, grid, predictions, image_sizes):
        """The boxes of N images, from what `forward` gave; `image_sizes` are (height, width). See `BoxSelector`."""
        return self.box_selector(grid, predictions, self.box_coding, image_sizes)


def build_assigner(cfg):
    """The rule that MODEL.ATSS.ASSIGNER names, with those of the keys' values that it takes as arguments."""
    atss = cfg.MODEL.ATSS
    negative, positive = atss.IOU_THRESHOLDS
    values = {
        "topk": atss.TOPK,
        "backend": atss.ASSIGNER_BACKEND,
        "positive": positive,
        "negative": negative,
        "center_in_box": atss.CENTER_IN_BOX,
        "ranges": atss.SCALE_RANGES,
    }
    assigner = ASSIGNER_REGISTRY.get(atss.ASSIGNER)
    taken = values.keys() & inspect.signature(assigner).parameters.keys()
    return assigner(**{name: values[name] for name in taken})


def check_predictions(predictions, grid, gt_boxes, gt_classes):
    """Check that predictions, grid and objects are of the same images; raise a ValueError that names what is not."""
    for name, prediction in predictions._asdict().items():
        if prediction is not None and prediction.shape[:2] != (len(gt_boxes), len(grid)):
            raise ValueError(
                f"predictions.{name}: expected {len(gt_boxes)} images (the length of gt_boxes) x {len(grid)} anchors "
                f"(those of grid), got {' x '.join(map(str, prediction.shape[:2]))}"
            )
    if [len(classes) for classes in gt_classes] != [len(boxes) for boxes in gt_boxes]:
        raise ValueError(
            f"gt_classes: expected as many as boxes, {[len(boxes) for boxes in gt_boxes]} by image, got "
            f"{[len(classes) for classes in gt_classes]}"
        )


def by_anchor(prediction, width):
    """(N, A * width, H, W) -> (N, H * W * A, width), in the order of `AnchorGrid`."""
    n, _, h, w = prediction.shape
    return prediction.view(n, -1, width, h, w).permute(0, 3, 4, 1, 2).reshape(n, -1, width)


def full_precision(prediction):
    """float32 at least: under mixed precision the losses and box arithmetic stay exact."""
    return prediction.to(torch.promote_types(prediction.dtype, torch.float32))


def shifted(boxes_by_image, shift):
    """A list of tensors of boxes, or None, with all coordinates less by `shift`."""
    return [boxes - shift for boxes in boxes_by_image] if shift and boxes_by_image else boxes_by_image


def matched_objects(matches, gt_boxes, gt_classes, anchors):
    """Box and class of every anchor's object; the anchor itself and class 0 where it has none.

    Args:
        matches: (N, R) int64, see `atss.assigners`.
        gt_boxes, gt_classes: lists of N tensors (G_i, 4) and (G_i,).
        anchors: (R, 4).

    Returns:
        (N, R, 4) and (N, R) int64.
    """
    num_objects = torch.tensor([len(boxes) for boxes in gt_boxes]).to(matches.device, non_blocking=True)
    first = num_objects.cumsum(0) - num_objects
    # One object more, so that there is one to point at where there is none.
    boxes = torch.cat([*gt_boxes, anchors[:1]]).to(anchors.dtype)
    classes = torch.cat([*gt_classes, matches.new_zeros(1)])
    positive = matches >= 0
    index = (matches + first[:, None]).where(positive, len(classes) - 1)
    return boxes[index].where(positive[..., None], anchors), classes[index].where(positive, 0)
