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
from .assigners import ASSIGNER_REGISTRY, Assigner
from .backbones.deformable import DeformableConv2d, ModulatedDeformConv
from .box_coding import BoxCoding, PointCoding
from .distribution_coding import DistributionCoding
from .fused_losses import fused_losses
from .inference import BoxSelector, Detections, in_full
from .losses import normalizers
from .quality_losses import quality_losses

ATSS_HEAD_REGISTRY = Registry("ATSS_HEAD")
ATSS_HEAD_REGISTRY.__doc__ = """
Heads, built as `HEAD(cfg, input_shape)` with the `ShapeSpec` of every level. `head(features)` returns a grid and
predictions, from which `head.losses(...)` computes losses and `head.detect(...)` detections.
"""


class Predictions(NamedTuple):
    """Predictions for N images, one feature map per level, finest level first.

    logits: (N, A * C, H, W), class scores before the sigmoid.
    deltas: (N, A * 4, H, W), boxes in the head's box coding, of which `num_values` may differ from 4.
    centerness: (N, A, H, W), before the sigmoid; None for a head without centerness.
    """

    logits: list[Tensor]
    deltas: list[Tensor]
    centerness: list[Tensor] | None

    def by_anchor(self, num_values: int = 4) -> tuple[Tensor, Tensor, Tensor | None]:
        """Logits (N, R, C), deltas (N, R, 4), centerness (N, R) in the order of `AnchorGrid`, in float32 or better."""
        num_anchors = self.deltas[0].shape[1] // num_values
        logits, deltas = joined(self.logits, num_anchors), joined(self.deltas, num_anchors)
        return logits, deltas, joined(self.centerness, num_anchors).squeeze(-1) if self.centerness else None


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
        box_coding: `BoxCoding`, `PointCoding`, or `DistributionCoding` with "quality_focal".
        box_selector: post-processing at inference.
        num_convs: number of 3x3 convolutions per tower; 0 for none, after a dynamic head.
        norm: normalisation in the towers, by Detectron2's name; "" for none.
        deformable: True for a deformable last convolution in each tower (the paper's DCNv2 models).
        centerness: True to predict centerness, which then weights the box loss and the score.
        level_scalars: True for a learnable factor of the box prediction per level.
        predictor_kernel: side of the convolutions that predict, an odd number.
        prior_prob: initial score of every class.
        class_loss: "focal", or "quality_focal" for `quality_losses`, without centerness and with the GIoU loss.
        focal_loss_alpha, focal_loss_gamma: see `focal_loss`; gamma is also beta of `quality_focal_loss`.
        box_loss: "giou" of the decoded boxes, or "smooth_l1" of the deltas.
        box_loss_weight: factor of the box loss.
        distribution_loss_weight: factor of the distribution focal loss.
        smooth_l1_beta: see `smooth_l1_loss`.
        loss_backend: "auto", "torch" or "triton", see `fused_losses`.

    Raises:
        ValueError: unknown `box_loss` or `class_loss`, or one that the other arguments do not fit.
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
        box_coding: BoxCoding | PointCoding | DistributionCoding,
        box_selector: BoxSelector,
        num_convs: int = 4,
        norm: str = "GN",
        deformable: bool = False,
        centerness: bool = True,
        level_scalars: bool = True,
        predictor_kernel: int = 3,
        prior_prob: float = 0.01,
        class_loss: str = "focal",
        focal_loss_alpha: float = 0.25,
        focal_loss_gamma: float = 2.0,
        box_loss: str = "giou",
        box_loss_weight: float = 2.0,
        distribution_loss_weight: float = 0.25,
        smooth_l1_beta: float = 0.11,
        loss_backend: str = "auto",
    ):
        super().__init__()
        if box_loss not in ("giou", "smooth_l1"):
            raise ValueError(f"box_loss: expected 'giou' or 'smooth_l1', got {box_loss!r}")
        if class_loss not in ("focal", "quality_focal"):
            raise ValueError(f"class_loss: expected 'focal' or 'quality_focal', got {class_loss!r}")
        if class_loss == "quality_focal" and (centerness or box_loss != "giou"):
            raise ValueError("class_loss: 'quality_focal' needs centerness=False and box_loss='giou'")
        if class_loss == "focal" and isinstance(box_coding, DistributionCoding):
            raise ValueError("box_coding: distributions need class_loss='quality_focal'")
        self.strides = list(strides)
        self.num_classes = num_classes
        self.anchor_offset = anchor_offset
        self.assigner = assigner
        self.box_coding = box_coding
        self.box_selector = box_selector
        self.class_loss = class_loss
        self.focal_loss_alpha = focal_loss_alpha
        self.focal_loss_gamma = focal_loss_gamma
        self.box_loss = box_loss
        self.box_loss_weight = box_loss_weight
        self.distribution_loss_weight = distribution_loss_weight
        self.smooth_l1_beta = smooth_l1_beta
        self.loss_backend = loss_backend
        self.cell_anchors = BufferList(cell_anchors)

        num_anchors = len(cell_anchors[0])
        self.class_tower = self._tower(in_channels, num_convs, norm, deformable)
        self.box_tower = self._tower(in_channels, num_convs, norm, deformable)
        kernel = {"kernel_size": predictor_kernel, "padding": predictor_kernel // 2}
        self.class_logits = nn.Conv2d(in_channels, num_anchors * num_classes, **kernel)
        self.box_deltas = nn.Conv2d(in_channels, num_anchors * box_coding.num_values, **kernel)
        self.centerness = nn.Conv2d(in_channels, num_anchors, **kernel) if centerness else None
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
        elif atss.BOX_CODING == "point":
            box_coding = PointCoding(atss.ANCHOR_SCALE, atss.PIXEL_EXTENT)
        else:
            box_coding = DistributionCoding(atss.ANCHOR_SCALE, atss.PIXEL_EXTENT, atss.MAX_DISTANCE)
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
                clip_before_nms=atss.CLIP_BEFORE_NMS,
            ),
            "num_convs": atss.NUM_CONVS,
            "norm": atss.NORM,
            "deformable": atss.USE_DCN_IN_TOWER,
            "centerness": atss.CENTERNESS,
            "level_scalars": atss.LEVEL_SCALARS,
            "predictor_kernel": atss.PREDICTOR_KERNEL,
            "prior_prob": atss.PRIOR_PROB,
            "class_loss": atss.CLASS_LOSS,
            "focal_loss_alpha": atss.FOCAL_LOSS_ALPHA,
            "focal_loss_gamma": atss.FOCAL_LOSS_GAMMA,
            "box_loss": atss.BOX_LOSS,
            "box_loss_weight": atss.BOX_LOSS_WEIGHT,
            "distribution_loss_weight": atss.DISTRIBUTION_LOSS_WEIGHT,
            "smooth_l1_beta": atss.SMOOTH_L1_BETA,
            "loss_backend": atss.LOSS_BACKEND,
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
            logits.append(self.class_logits(self.class_tower(feature)))
            box_delta = self.box_deltas(box_feature)
            deltas.append(box_delta if self.scales is None else box_delta * self.scales[level])
            if self.centerness is not None:
                centerness.append(self.centerness(box_feature))
        predictions = Predictions(logits, deltas, centerness or None)
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
            average over all processes. Without centerness all positives have the same weight in `loss_box`. With
            "quality_focal" see `quality_losses`.

        Raises:
            TypeError, ValueError: an argument of the wrong type, shape or device; the message names it.
        """
        check_predictions(predictions, grid, gt_boxes, gt_classes)
        # The centre of a box that ends with its last pixel is half a pixel less.
        shift = self.box_coding.pixel_extent / 2
        matches = self.assigner(grid, shifted(gt_boxes, shift), shifted(ignore_boxes, shift))
        if self.class_loss == "quality_focal":
            factors = self.focal_loss_gamma, self.box_loss_weight, self.distribution_loss_weight
            return quality_losses(*predictions[:2], matches, gt_boxes, gt_classes, grid, self.box_coding, *factors)
        sums, positives = fused_losses(
            *predictions,
            matches,
            gt_boxes,
            gt_classes,
            grid,
            self.box_coding,
            self.focal_loss_alpha,
            self.focal_loss_gamma,
            None if self.box_loss == "giou" else self.smooth_l1_beta,
            self.box_loss_weight,
            self.loss_backend,
        )
        losses = (sums / normalizers(positives)).unbind()
        names = ("loss_cls", "loss_box", "loss_centerness")[: 3 if self.centerness is not None else 2]
        return dict(zip(names, losses, strict=False))

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
    """Raise a ValueError unless predictions, grid and ground truth agree in images, feature maps and boxes."""
    for name, maps in predictions._asdict().items():
        shapes = [(len(gt_boxes), *shape) for shape in grid.shapes]
        found = [(len(values), *values.shape[2:]) for values in maps or ()]
        if maps is not None and found != shapes:
            raise ValueError(
                f"predictions.{name}: expected {len(gt_boxes)} images (the length of gt_boxes) on levels of "
                f"{text_of(shapes)} (those of grid), got {len(maps[0])} on {text_of(found)}"
            )
    expected, found = ([len(values) for values in by_image] for by_image in (gt_boxes, gt_classes))
    if found != expected:
        raise ValueError(f"gt_classes: expected as many as boxes, {expected} by image, got {found}")


def text_of(shapes):
    return ", ".join(f"{height} x {width}" for _, height, width in shapes)


def joined(maps, num_anchors):
    """(N, A * width, H, W) per level -> (N, R, width) in the order of `AnchorGrid`, in float32 or better."""
    by_level = [values.unflatten(1, (num_anchors, -1)).permute(0, 3, 4, 1, 2).flatten(1, 3) for values in maps]
    return in_full(torch.cat(by_level, dim=1))


def shifted(boxes_by_image, shift):
    """Subtract `shift` from all coordinates of a list of boxes, or of None."""
    return [boxes - shift for boxes in boxes_by_image] if shift and boxes_by_image else boxes_by_image
