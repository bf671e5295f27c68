"""The losses of a batch and their gradient in one sweep over the predictions.

`losses` defines the losses; here are their sums and, in closed form, their gradients. The logits are read once, where
the head wrote them, and their gradient is written once; nothing else of their size exists. The backward pass scales it.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .anchors import AnchorGrid
from .assigners.backends import settle_backend
from .assigners.matches import IGNORED
from .box_coding import BoxCoding, PointCoding
from .losses import GIOU_EPS, centerness_targets, smooth_l1_loss

# Logits that are worked on at once: few enough for a core's cache, many enough for a GPU.
BLOCK, GPU_BLOCK = 1 << 16, 1 << 24
# Beyond, exp() overflows in float32, and softplus(x) is x.
MAX_EXPONENT = 88
# sigmoid(x) and softplus(x) of this are 0, in float16 too.
MIN_LOGIT = -1e4


class FusedLosses(torch.autograd.Function):
    """The sums of `fused_losses`, of which the first three have a gradient for the feature maps of all levels."""

    @staticmethod
    def forward(ctx, backend, targets, num_levels, *maps):
        maps = in_one_format(maps)
        kinds = maps[:num_levels], maps[num_levels : 2 * num_levels], maps[2 * num_levels :]
        if backend == "triton":
            from .kernels.losses import losses_with_triton, scaled_with_triton

            sums, gradient = losses_with_triton(*kinds, *targets)
            ctx.scaled = scaled_with_triton
        else:
            sums, gradient = torch.ops.atss.losses(*kinds, *targets)
            ctx.scaled = scaled
        ctx.save_for_backward(gradient)
        ctx.sizes = [sum(map(torch.numel, of_kind)) for of_kind in kinds]
        ctx.layouts = layouts_of(maps)
        ctx.dtypes = [values.dtype for values in maps]
        losses, positives = sums.split(3)
        ctx.mark_non_differentiable(positives)
        return losses, positives

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, factors, _):
        (gradient,) = ctx.saved_tensors
        dtype = ctx.dtypes[0] if len(set(ctx.dtypes)) == 1 else factors.dtype
        of_maps = split(ctx.scaled(gradient, ctx.sizes, factors, dtype), ctx.layouts)
        return None, None, None, *(part.to(dtype) for part, dtype in zip(of_maps, ctx.dtypes, strict=True))


def scaled(gradient, sizes, factors, dtype):
    """A flat gradient, of which parts of three sizes are multiplied by `factors` (3,)."""
    result = torch.empty_like(gradient, dtype=dtype)
    parts, results = gradient.split(sizes), result.split(sizes)
    for part, factor, into in zip(parts, factors.unbind(), results, strict=True):
        torch.mul(part, factor, out=into)
    return result


def fused_losses(
    logits: Sequence[Tensor],
    deltas: Sequence[Tensor],
    centerness: Sequence[Tensor] | None,
    matches: Tensor,
    gt_boxes: Sequence[Tensor],
    gt_classes: Sequence[Tensor],
    grid: AnchorGrid,
    box_coding: BoxCoding | PointCoding,
    alpha: float = 0.25,
    gamma: float = 2.0,
    smooth_l1_beta: float | None = None,
    box_loss_weight: float = 1.0,
    backend: str = "auto",
) -> tuple[Tensor, Tensor]:
    """Sums of the losses of a batch, with a gradient for the predictions.

    Args:
        logits: (N, A * C, H_l, W_l) per level.
        deltas: (N, A * 4, H_l, W_l) per level.
        centerness: (N, A, H_l, W_l) per level; None for positives of weight 1.
        matches: (N, R) int64, see `Assigner`.
        gt_boxes: N tensors (G_i, 4), x1 y1 x2 y2 in pixels.
        gt_classes: N int64 tensors (G_i,).
        grid: the anchors.
        box_coding: of the deltas.
        alpha, gamma: see `focal_loss`.
        smooth_l1_beta: see `smooth_l1_loss`; None for the GIoU loss.
        box_loss_weight: factor of the box loss.
        backend: "torch", on every device; "triton" on CUDA GPUs; "auto" for the faster one.

    Returns:
        two tensors (3,) in float32 or better: the sums of the focal loss, of the weighted box loss and of the
        centerness loss; and what `normalizers` divides them by: the number of positives, the sum of their weights, the
        number of positives.

    Raises:
        ValueError: "triton" on a device without it.
    """
    backend = settle_backend(backend, matches.device)
    first = first_boxes(gt_boxes, matches.device)
    of_points = isinstance(box_coding, PointCoding)
    targets = (
        matches,
        first,
        torch.cat([*gt_boxes]),
        torch.cat([*gt_classes]),
        grid.cell_anchors,
        grid.strides,
        grid.offset,
        [] if of_points else list(box_coding.weights),
        box_coding.anchor_scale if of_points else 0.0,
        box_coding.pixel_extent,
        alpha,
        gamma,
        -1.0 if smooth_l1_beta is None else smooth_l1_beta,
        box_loss_weight,
    )
    return FusedLosses.apply(backend, targets, len(logits), *logits, *deltas, *(centerness or ()))


def first_boxes(gt_boxes: Sequence[Tensor], device: torch.device) -> Tensor:
    """Index (N,) int64 of each image's first box among the boxes of all N images."""
    return torch.tensor([0, *map(len, gt_boxes)][:-1]).cumsum(0).to(device, non_blocking=True)


@torch.library.custom_op("atss::losses", mutates_args=())
def losses_and_gradients(
    logits: Sequence[Tensor],
    deltas: Sequence[Tensor],
    centerness: Sequence[Tensor],
    matches: Tensor,
    first: Tensor,
    gt_boxes: Tensor,
    gt_classes: Tensor,
    cell_anchors: Sequence[Tensor],
    strides: Sequence[int],
    offset: float,
    weights: Sequence[float],
    anchor_scale: float,
    pixel_extent: int,
    alpha: float,
    gamma: float,
    smooth_l1_beta: float,
    box_loss_weight: float,
) -> tuple[Tensor, Tensor]:
    """`fused_losses` on plain values: all sums (6,), and a flat gradient of the first three for all feature maps.

    `first` is the index in `gt_boxes` (M, 4) of each image's first box.
    """
    box_coding = BoxCoding(weights, pixel_extent) if weights else PointCoding(anchor_scale, pixel_extent)
    dtype = torch.promote_types(logits[0].dtype, torch.float32)
    kinds = [logits, deltas, centerness] if centerness else [logits, deltas]
    maps = [values for of_kind in kinds for values in of_kind]
    gradient = maps[0].new_zeros(sum(map(torch.numel, maps)), dtype=dtype)
    of_maps, num_levels = split(gradient, layouts_of(maps)), len(logits)
    grid = AnchorGrid([values.shape[2:] for values in logits], strides, cell_anchors, offset)
    anchors, gt_boxes = grid.boxes().to(dtype), gt_boxes.to(dtype)
    sums, start = maps[0].new_zeros(6, dtype=torch.float64), 0
    for level, size in enumerate(grid.level_sizes):
        shape = len(matches), grid.num_per_cell, -1, size // grid.num_per_cell
        of_level = slice(start, start + size)
        sums += level_losses(
            [values.view(shape) for values in maps[level::num_levels]],
            [values.view(shape) for values in of_maps[level::num_levels]],
            Targets(matches[:, of_level], first, gt_boxes, gt_classes, anchors[of_level]),
            box_coding,
            alpha,
            gamma,
            smooth_l1_beta,
            box_loss_weight,
        )
        start += size
    return sums.to(dtype), gradient


def layouts_of(maps):
    """Shape and stride of each feature map."""
    return [(values.shape, values.stride()) for values in maps]


def in_one_format(maps):
    """Feature maps that are all contiguous or all channels_last; these are not copied."""
    if all(values.is_contiguous() for values in maps):
        return maps
    return [values.contiguous(memory_format=torch.channels_last) for values in maps]


def split(flat, layouts):
    """Views of a flat tensor as feature maps, given the shape and the stride of each."""
    parts = flat.split([shape.numel() for shape, _ in layouts])
    return [
        part.as_strided(shape, stride, part.storage_offset())
        for part, (shape, stride) in zip(parts, layouts, strict=True)
    ]


def flat(values):
    """A view of a tensor without gaps as it lies in memory."""
    return values.as_strided((values.numel(),), (1,))


class Targets(NamedTuple):
    """Targets of a level's anchors, named as arguments of `losses_and_gradients`."""

    matches: Tensor  # (N, H * W * A)
    first: Tensor
    gt_boxes: Tensor
    gt_classes: Tensor
    anchors: Tensor  # (H * W * A, 4)


def level_losses(predicted, gradients, targets, box_coding, alpha, gamma, smooth_l1_beta, box_loss_weight):
    """The sums of a level; writes its gradients.

    Args:
        predicted: logits (N, A, C, H * W), deltas (N, A, 4, H * W) and, unless omitted, centerness (N, A, 1, H * W).
        gradients: tensors of the same shapes.
    """
    (logits, deltas, *centerness), (grad_logits, grad_deltas, *grad_centerness) = predicted, gradients
    dtype, num_anchors = grad_logits.dtype, logits.shape[1]
    image, anchor = (targets.matches == IGNORED).nonzero(as_tuple=True)
    if len(image):
        # As negatives these have neither loss nor gradient.
        logits = logits.clone()
        logits[image, anchor % num_anchors, :, anchor // num_anchors] = MIN_LOGIT
    loss_cls = focal_sweep(logits, grad_logits, 1 - alpha, gamma)

    image, anchor = (targets.matches >= 0).nonzero(as_tuple=True)
    matched = targets.matches[image, anchor] + targets.first[image]
    boxes, anchors = targets.gt_boxes[matched], targets.anchors[anchor]
    cell, anchor = anchor // num_anchors, anchor % num_anchors
    place, of_class = (image, anchor, slice(None), cell), (image, anchor, targets.gt_classes[matched], cell)
    x = logits[of_class].to(dtype)
    as_negative, _ = focal_terms(x, 1 - alpha, gamma)
    as_positive, slope = focal_terms(-x, alpha, gamma)
    loss_cls += (as_positive - as_negative).sum()
    grad_logits[of_class] = -slope

    weights = anchors.new_ones(len(anchors))
    loss_centerness = weights.new_zeros(())
    if centerness:
        points = (anchors[:, :2] + anchors[:, 2:] + box_coding.pixel_extent) / 2
        weights = centerness_targets(points, boxes)
        y = centerness[0][place].squeeze(1).to(dtype)
        loss_centerness = F.binary_cross_entropy_with_logits(y, weights, reduction="sum")
        grad_centerness[0][place] = (y.sigmoid() - weights)[:, None]

    deltas = deltas[place].to(dtype)
    if smooth_l1_beta < 0:
        loss_box, slope = giou_terms(box_coding.decode(deltas, anchors), boxes)
        slope = box_coding.decode_backward(deltas, anchors, slope)
    else:
        loss_box, slope = smooth_l1_terms(deltas, box_coding.encode(boxes, anchors), smooth_l1_beta)
    grad_deltas[place] = slope * (weights[:, None] * box_loss_weight)
    loss_box, number = (loss_box * weights).sum() * box_loss_weight, weights.new_tensor(len(weights))
    return torch.stack([loss_cls.to(dtype), loss_box, loss_centerness, number, weights.sum(), number])


def focal_sweep(logits, gradient, weight, gamma):
    """Sum of the focal loss of all logits as negatives; writes its gradient, a tensor of the same shape."""
    block = BLOCK if logits.is_cpu else GPU_BLOCK
    logits, gradient = flat(logits).split(block), flat(gradient).split(block)
    buffers = [torch.empty_like(gradient[0]) for _ in range(3)]
    sums = []
    for x, slope in zip(logits, gradient, strict=True):
        p, loss, power = (buffer[: len(x)] for buffer in buffers)
        torch.sigmoid(p.copy_(x), out=p)
        # softplus(x), several times as fast as PyTorch's
        torch.clamp(loss.copy_(x), max=MAX_EXPONENT, out=loss).exp_().log1p_()
        torch.maximum(loss, x, out=loss)
        torch.mul(p, p, out=power) if gamma == 2 else torch.pow(p, gamma, out=power)
        sums.append(torch.dot(power, loss))
        # p^gamma (gamma (1 - p) softplus(x) + p)
        torch.addcmul(loss, p, loss, value=-1, out=loss)
        torch.add(p, loss, alpha=gamma, out=p)
        torch.mul(power, p, out=slope).mul_(weight)
    return torch.stack(sums).double().sum() * weight


def focal_terms(x, weight, gamma):
    """Focal loss of logits as negatives and its derivative: weight p^gamma softplus(x) for p = sigmoid(x)."""
    p, softplus = x.sigmoid(), F.softplus(x)
    power = weight * p**gamma
    return power * softplus, power * (gamma * (1 - p) * softplus + p)


def giou_terms(boxes, targets):
    """`giou_loss` of boxes (P, 4) and its gradient (P, 4)."""
    (low, high), (target_low, target_high) = boxes.split(2, -1), targets.split(2, -1)
    side, common = high - low, torch.minimum(high, target_high) - torch.maximum(low, target_low)
    overlap, extent = common.clamp(min=0), torch.maximum(high, target_high) - torch.minimum(low, target_low)
    intersection, enclosing = overlap.prod(-1, keepdim=True), extent.prod(-1, keepdim=True) + GIOU_EPS
    areas = side.prod(-1, keepdim=True) + (target_high - target_low).prod(-1, keepdim=True)
    union = areas - intersection + GIOU_EPS
    iou = intersection / union
    loss = 1 - iou + (enclosing - union) / enclosing

    # With respect to the lengths of the overlap, the box and the enclosing box, on the x and y axis.
    of_overlap = (1 / enclosing - (1 + iou) / union) * overlap.flip(-1) * (common >= 0)
    of_side = (iou / union - 1 / enclosing) * side.flip(-1)
    of_extent = union / enclosing / enclosing * extent.flip(-1)

    def share(difference):  # of a minimum's gradient: one half if both are equal
        return torch.heaviside(difference, difference.new_tensor(0.5))

    to_high = of_overlap * share(target_high - high) + of_side + of_extent * share(high - target_high)
    to_low = of_overlap * share(low - target_low) + of_side + of_extent * share(target_low - low)
    return loss.squeeze(-1), torch.cat([-to_low, to_high], -1)


def smooth_l1_terms(deltas, targets, beta):
    """`smooth_l1_loss` of deltas (P, 4) and its gradient (P, 4)."""
    difference = deltas - targets
    return smooth_l1_loss(deltas, targets, beta), (difference / beta).clamp(-1, 1) / 4
