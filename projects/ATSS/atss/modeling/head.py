"""The head: two towers over five feature maps, three predictions per anchor, and their losses or detections."""

import inspect
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import Conv2d, ShapeSpec, get_norm
from detectron2.modeling.anchor_generator import BufferList
from detectron2.utils.registry import Registry
from torch import Tensor, nn
from torch.nn import functional as F

from .anchors import AnchorGrid, make_cell_anchors
from .assigners import ASSIGNER_REGISTRY, IGNORED, Assigner
from .backbones.deformable import DeformableConv2d, ModulatedDeformConv
from .box_coding import BoxCoding, PointCoding
from .inference import BoxSelector, Detections
from .losses import centerness_targets, focal_loss, giou_loss, normalizers, smooth_l1_loss

ATSS_HEAD_REGISTRY = Registry("ATSS_HEAD")
ATSS_HEAD_REGISTRY.__doc__ = """
Heads, built as `HEAD(cfg, input_shape)` with the `ShapeSpec` of every level. `head(features)` returns a grid and
predictions, from which `head.losses(...)` computes losses and `head.detect(...)` detections.
"""


class Predictions(NamedTuple):
    """Predictions for the R anchors of N images.

    logits: (N, R, C), class scores before the sigmoid.
    deltas: (N, R, 4), boxes in the head's box coding.
    centerness: (N, R), before the sigmoid; None for a head without centerness.
    """

    logits: Tensor
    deltas: Tensor
    centerness: Tensor | None


@ATSS_HEAD_REGISTRY.register()
class ATSSHead(nn.Module):
    """Head of the paper (section 3.1): RetinaNet's towers with GroupNorm, centerness and a scalar per level.

    Without these three, and with smooth L1 as box loss, it is RetinaNet's head (Table 1).

    Args:
        in_channels: channels of the feature maps and of the towers.
        strides: stride per level, in pixels.
        num_classes: C.
        cell_anchors: one (A, 4) tensor per level, see `AnchorGrid`.
        anchor_offset: position of a cell's centre, in strides.
        assigner: label assignment rule, see `assigners`.
        box_coding: `BoxCoding` or `PointCoding`.
        box_selector: post-processing at inference.
        num_convs: number of 3x3 convolutions per tower.
        norm: normalisation in the towers, by Detectron2's name; "" for none.
        deformable: True for a deformable last convolution in each tower (the paper's DCNv2 models).
        centerness: True to predict centerness, which then weights the box loss and the score.
        level_scalars: True for a learnable factor of the box prediction per level.
        prior_prob: initial score of every class.
        focal_loss_alpha, focal_loss_gamma: see `focal_loss`.
        box_loss: "giou" of the decoded boxes, or "smooth_l1" of the deltas.
        box_loss_weight: factor of the box loss.
        smooth_l1_beta: see `smooth_l1_loss`.

    Raises:
        ValueError: unknown `box_loss`.
    """

    @configurable
    def __init__(
        self,
        *,
        in_channels: int,
        strides: Sequence[int],
        num_classes: int,
        cell_anchors: Sequence[Tensor],
        anchor_offset: float,
        assigner: Assigner,
        box_coding: BoxCoding | PointCoding,
        box_selector: BoxSelector,
        num_convs: int = 4,
        norm: str = "GN",
        deformable: bool = False,
        centerness: bool = True,
        level_scalars: bool = True,
        prior_prob: float = 0.01,
        focal_loss_alpha: float = 0.25,
        focal_loss_gamma: float = 2.0,
        box_loss: str = "giou",
        box_loss_weight: float = 2.0,
        smooth_l1_beta: float = 0.11,
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
        self.cell_anchors = BufferList(cell_anchors)

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
    def from_config(cls, cfg: CfgNode, input_shape: Sequence[ShapeSpec]) -> dict:
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

    def forward(self, features: Sequence[Tensor]) -> tuple[AnchorGrid, Predictions]:
        """Predict class scores, deltas and centerness of all anchors.

        Args:
            features: (N, in_channels, H_l, W_l) per level, finest level first.
        """
        logits, deltas, centerness = [], [], []
        for level, feature in enumerate(features):
            box_feature = self.box_tower(feature)
            logits.append(by_anchor(self.class_logits(self.class_tower(feature)), self.num_classes))
            box_delta = self.box_deltas(box_feature)
            deltas.append(by_anchor(box_delta if self.scales is None else box_delta * self.scales[level], 4))
            if self.centerness is not None:
                centerness.append(by_anchor(self.centerness(box_feature), 1).squeeze(-1))
        predictions = Predictions(joined(logits), joined(deltas), joined(centerness) if centerness else None)
        return self.grid([feature.shape[-2:] for feature in features]), predictions

    def grid(self, shapes: Sequence[tuple[int, int]]) -> AnchorGrid:
        """The anchors of feature maps with these shapes (H, W)."""
        return AnchorGrid(shapes, self.strides, list(self.cell_anchors), self.anchor_offset)

    def losses(
        self,
        grid: AnchorGrid,
        predictions: Predictions,
        gt_boxes: Sequence[Tensor],
        gt_classes: Sequence[Tensor],
        ignore_boxes: Sequence[Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """The losses of a batch (sections 3.1 and 4.1).

        Args:
            grid, predictions: result of `forward`.
            gt_boxes: N tensors (G_i, 4), x1 y1 x2 y2 in pixels.
            gt_classes: N int64 tensors (G_i,).
            ignore_boxes: N tensors (K_i, 4), regions where background has no loss.

        Returns:
            dict of scalars `loss_cls`, `loss_box` and, with centerness, `loss_centerness`. They are normalised by the
            average over all processes. Without centerness all positives have the same weight in `loss_box`.

        Raises:
            TypeError, ValueError: an argument of the wrong type, shape or device; the message names it.
        """
        check_predictions(predictions, grid, gt_boxes, gt_classes)
        # The centre of a box that ends with its last pixel is half a pixel less.
        shift = self.box_coding.pixel_extent / 2
        matches = self.assigner(grid, shifted(gt_boxes, shift), shifted(ignore_boxes, shift))
        positive, anchors = matches >= 0, grid.boxes()
        boxes, classes = matched_targets(matches, gt_boxes, gt_classes, anchors)
        weights = torch.ones_like(positive, dtype=anchors.dtype)
        if self.centerness is not None:
            weights = centerness_targets((anchors[:, :2] + anchors[:, 2:]) / 2 + shift, boxes)
        num_positive, sum_of_weights = normalizers(positive, weights)

        logits, deltas, centerness = predictions
        valid = matches != IGNORED
        loss_cls = focal_loss(logits, classes, positive, valid, self.focal_loss_alpha, self.focal_loss_gamma)
        if self.box_loss == "giou":
            box_losses = giou_loss(self.box_coding.decode(deltas, anchors), boxes)
        else:
            box_losses = smooth_l1_loss(deltas, self.box_coding.encode(boxes, anchors), self.smooth_l1_beta)
        loss_box = (box_losses * weights * positive).sum() / sum_of_weights
        losses = {"loss_cls": loss_cls / num_positive, "loss_box": loss_box * self.box_loss_weight}
        if self.centerness is not None:
            loss = F.binary_cross_entropy_with_logits(centerness, weights, reduction="none")
            losses["loss_centerness"] = (loss * positive).sum() / num_positive
        return losses

    def detect(
        self, grid: AnchorGrid, predictions: Predictions, image_sizes: Sequence[tuple[int, int]]
    ) -> list[Detections]:
        """The detections of N images of `image_sizes` (height, width), see `BoxSelector`."""
        return self.box_selector(grid, predictions, self.box_coding, image_sizes)


def build_assigner(cfg: CfgNode) -> Assigner:
    """Build the rule MODEL.ATSS.ASSIGNER with those keys that its constructor takes."""
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
    """Raise a ValueError unless predictions, grid and ground truth agree in images, anchors and boxes."""
    for name, prediction in predictions._asdict().items():
        if prediction is not None and prediction.shape[:2] != (len(gt_boxes), len(grid)):
            raise ValueError(
                f"predictions.{name}: expected {len(gt_boxes)} images (the length of gt_boxes) x {len(grid)} anchors "
                f"(those of grid), got {' x '.join(map(str, prediction.shape[:2]))}"
            )
    expected, found = ([len(values) for values in by_image] for by_image in (gt_boxes, gt_classes))
    if found != expected:
        raise ValueError(f"gt_classes: expected as many as boxes, {expected} by image, got {found}")


def by_anchor(prediction, width):
    """(N, A * width, H, W) -> (N, H * W * A, width), in the order of `AnchorGrid`."""
    n, _, h, w = prediction.shape
    return prediction.view(n, -1, width, h, w).permute(0, 3, 4, 1, 2).reshape(n, -1, width)


def joined(by_level):
    """Concatenate the levels, in float32 or better: under mixed precision losses and box arithmetic stay exact."""
    prediction = torch.cat(by_level, dim=1)
    return prediction.to(torch.promote_types(prediction.dtype, torch.float32))


def shifted(boxes_by_image, shift):
    """Subtract `shift` from all coordinates of a list of boxes, or of None."""
    return [boxes - shift for boxes in boxes_by_image] if shift and boxes_by_image else boxes_by_image


def matched_targets(matches, gt_boxes, gt_classes, anchors):
    """Box (N, R, 4) and class (N, R) of every anchor's match; the anchor (R, 4) itself and class 0 without a match."""
    counts = torch.tensor([len(boxes) for boxes in gt_boxes]).to(matches.device, non_blocking=True)
    first = counts.cumsum(0) - counts
    # One row, of class 0, is appended for anchors without a match.
    boxes = torch.cat([*gt_boxes, anchors[:1]]).to(anchors.dtype)
    classes = torch.cat([*gt_classes, matches.new_zeros(1)])
    positive = matches >= 0
    index = (matches + first[:, None]).where(positive, len(classes) - 1)
    return boxes[index].where(positive[..., None], anchors), classes[index]
