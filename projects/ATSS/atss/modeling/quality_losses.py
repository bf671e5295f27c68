"""The losses of Generalized Focal Loss (arXiv 2006.04388): a class score is trained to be the IoU of the predicted box.

A positive's target is the IoU of its box with the ground truth, in the place of 1 and of centerness; its class score
weights the losses of its box. One sweep over the logits takes all of them for negatives, and the positives are
corrected: nothing else of the logits' size exists but their gradient.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .anchors import AnchorGrid
from .assigners.matches import IGNORED
from .box_coding import BoxCoding, PointCoding
from .distribution_coding import DistributionCoding, distribution_focal_loss
from .fused_losses import MIN_LOGIT, first_boxes, focal_sweep, in_one_format
from .losses import giou_loss, normalizers


def quality_focal_terms(logits: Tensor, quality: Tensor | float, beta: float = 2.0) -> tuple[Tensor, Tensor]:
    """Quality focal loss, |quality - p|^beta times the cross-entropy of p = sigmoid(logits) (equation 5).

    Args:
        logits: (...).
        quality: (...), targets from 0 to 1. With 0 this is the focal loss of a negative, of weight 1.
        beta: focusing exponent, at least 1.

    Returns:
        the loss (...) and its derivative (...) with respect to the logits.
    """
    p = logits.sigmoid()
    cross_entropy = F.softplus(logits) - quality * logits
    distance, power = (p - quality).abs(), (p - quality).abs() ** beta
    slope = beta * distance ** (beta - 1) * (p - quality).sign() * p * (1 - p)
    return power * cross_entropy, slope * cross_entropy + power * (p - quality)


def quality_losses(
    logits: Sequence[Tensor],
    deltas: Sequence[Tensor],
    matches: Tensor,
    gt_boxes: Sequence[Tensor],
    gt_classes: Sequence[Tensor],
    grid: AnchorGrid,
    box_coding: BoxCoding | PointCoding | DistributionCoding,
    beta: float = 2.0,
    box_loss_weight: float = 2.0,
    distribution_loss_weight: float = 0.25,
) -> dict[str, Tensor]:
    """The losses of a batch, on every device in PyTorch.

    Args:
        logits: (N, A * C, H_l, W_l) per level.
        deltas: (N, A * box_coding.num_values, H_l, W_l) per level.
        matches: (N, R) int64, see `Assigner`.
        gt_boxes: N tensors (G_i, 4), x1 y1 x2 y2 in pixels.
        gt_classes: N int64 tensors (G_i,).
        grid: the anchors.
        box_coding: of the deltas.
        beta: see `quality_focal_terms`.
        box_loss_weight, distribution_loss_weight: factors of the GIoU loss and of the distribution focal loss.

    Returns:
        dict of scalars in float32 or better: `loss_cls`, divided by the number of positives; `loss_box` and, for
        distributions, `loss_distribution`, divided by the sum of the positives' weights. Both divisors are averages
        over all processes, and at least 1.
    """
    dtype, num_anchors = torch.promote_types(logits[0].dtype, torch.float32), grid.num_per_cell
    first = first_boxes(gt_boxes, matches.device)
    gt_boxes, gt_classes = torch.cat([*gt_boxes]).to(dtype), torch.cat([*gt_classes])
    levels = zip(logits, deltas, matches.split(grid.level_sizes, 1), grid.boxes().split(grid.level_sizes), strict=True)
    ignored, positives, rows = [], [], []
    for *maps, found, anchors in levels:
        image, cell, index = place = places_of(found >= 0, num_anchors)
        anchor = cell * num_anchors + index
        matched = found[image, anchor] + first[image]
        scores, coded = (by_cell(values, num_anchors)[place].to(dtype) for values in maps)
        ignored.append(places_of(found == IGNORED, num_anchors))
        positives.append((*place, gt_classes[matched]))
        rows.append((scores.detach().amax(1).sigmoid(), coded, anchors[anchor].to(dtype), gt_boxes[matched]))
    # Of all positives: (P,), (P, num_values), (P, 4), (P, 4).
    weights, deltas, anchors, boxes = map(torch.cat, zip(*rows, strict=True))

    decoded = box_coding.decode(deltas, anchors)
    quality = iou_of_pairs(decoded.detach(), boxes).split([len(place[0]) for place in positives])
    losses = {
        "loss_cls": QualityFocalLoss.apply(beta, num_anchors, ignored, positives, quality, *logits),
        "loss_box": (giou_loss(decoded, boxes) * weights).sum() * box_loss_weight,
    }
    if isinstance(box_coding, DistributionCoding):
        of_sides = distribution_focal_loss(deltas.unflatten(1, (4, -1)), box_coding.encode(boxes, anchors))
        losses["loss_distribution"] = (of_sides.mean(1) * weights).sum() * distribution_loss_weight
    number = weights.new_tensor(len(weights))
    number, weight, _ = normalizers(torch.stack([number, weights.sum(), number])).clamp(min=1).unbind()
    return {name: loss / (number if name == "loss_cls" else weight) for name, loss in losses.items()}


class QualityFocalLoss(torch.autograd.Function):
    """Sum of the quality focal loss of feature maps of logits; the same sweep finds its gradient.

    For each level, `ignored` and `positives` are indices in `by_cell`, those of positives up to their class, and
    `quality` has the targets of positives.
    """

    @staticmethod
    def forward(ctx, beta, num_anchors, ignored, positives, quality, *logits):
        logits = in_one_format(logits)
        dtype = torch.promote_types(logits[0].dtype, torch.float32)
        gradients, sums = [torch.empty_like(of_level, dtype=dtype) for of_level in logits], []
        for of_level, gradient, without, place, target in zip(
            logits, gradients, ignored, positives, quality, strict=True
        ):
            if len(without[0]):
                # As negatives these have neither loss nor gradient.
                of_level = of_level.clone()
                by_cell(of_level, num_anchors)[without] = MIN_LOGIT
            sums.append(focal_sweep(of_level, gradient, 1.0, beta))
            x = by_cell(of_level, num_anchors)[place].to(dtype)
            as_negative, _ = quality_focal_terms(x, 0.0, beta)
            as_positive, by_cell(gradient, num_anchors)[place] = quality_focal_terms(x, target, beta)
            sums.append((as_positive - as_negative).sum().double())
        ctx.dtype = logits[0].dtype
        ctx.save_for_backward(*gradients)
        return torch.stack(sums).sum().to(dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, factor):
        return None, None, None, None, None, *((gradient * factor).to(ctx.dtype) for gradient in ctx.saved_tensors)


def by_cell(values, num_anchors):
    """A view of a feature map (N, A * width, H, W) as (N, H * W, A, width).

    Indexed, it has a gradient that is channels_last.
    """
    return values.permute(0, 2, 3, 1).flatten(1, 2).unflatten(2, (num_anchors, -1))


def places_of(mask, num_anchors):
    """Indices in `by_cell` of the anchors of a level that a mask (N, H * W * A) selects: image, cell, anchor of it."""
    image, anchor = mask.nonzero(as_tuple=True)
    return image, anchor // num_anchors, anchor % num_anchors


def iou_of_pairs(boxes, targets):
    """IoU (P,) of boxes (P, 4) and targets (P, 4), x1 y1 x2 y2, of which the targets have an area."""
    low, high = torch.maximum(boxes, targets), torch.minimum(boxes, targets)
    intersection = (high[:, 2:] - low[:, :2]).clamp(min=0).prod(1)
    areas = sum((of_pairs[:, 2:] - of_pairs[:, :2]).prod(1) for of_pairs in (boxes, targets))
    return intersection / (areas - intersection)
