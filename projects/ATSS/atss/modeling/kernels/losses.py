"""All losses and their gradient in one kernel: `..fused_losses` for GPUs.

A program works on a block of cells of one level, one anchor per cell, and a block of classes. It reads the predictions
where the head wrote them and writes their gradient; memory traffic is little more than that. Every program writes its
sums, which are added afterwards in a fixed order: equal input gives equal losses.
"""

import torch
import triton
import triton.language as tl

from ..assigners.matches import IGNORED
from ..box_coding import MAX_LOG_RATIO
from ..losses import GIOU_EPS

CELLS, CLASSES, SCALED = tl.constexpr(128), tl.constexpr(16), tl.constexpr(1024)
_IGNORED, _GIOU_EPS, _MAX_LOG_RATIO = tl.constexpr(IGNORED), tl.constexpr(GIOU_EPS), tl.constexpr(MAX_LOG_RATIO)


def losses_with_triton(
    logits,
    deltas,
    centerness,
    matches,
    first,
    gt_boxes,
    gt_classes,
    cell_anchors,
    strides,
    offset,
    weights,
    anchor_scale,
    pixel_extent,
    alpha,
    gamma,
    smooth_l1_beta,
    box_loss_weight,
):
    """The same arguments and results as `losses_and_gradients`, for tensors on a GPU.

    Either all feature maps are contiguous or all are channels_last.
    """
    num_images, num_anchors = len(matches), deltas[0].shape[1] // 4
    num_classes = logits[0].shape[1] // num_anchors
    cells = [maps.shape[2] * maps.shape[3] for maps in deltas]
    sizes = [sum(map(torch.numel, maps)) for maps in (logits, deltas, centerness)]
    # Small gradients would vanish in float16 before the backward pass scales them.
    dtype = torch.bfloat16 if logits[0].dtype == torch.bfloat16 else torch.float32
    gradient = gt_boxes.new_empty(sum(sizes), dtype=dtype)
    num_blocks = sum(triton.cdiv(number, CELLS.value) for number in cells)
    programs = num_blocks * num_anchors, triton.cdiv(num_classes, CLASSES.value), num_images
    sums = gt_boxes.new_empty(programs[0] * programs[1] * programs[2], 6, dtype=torch.float32)
    # Without ground truth nothing is read from these.
    gt_boxes = gt_boxes.float() if len(gt_boxes) else sums
    gt_classes = gt_classes if len(gt_classes) else first
    with torch.cuda.device_of(matches):
        add_losses[programs](
            tuple(logits),
            tuple(deltas),
            tuple(centerness),
            *gradient.split(sizes),
            sums,
            matches,
            first,
            gt_boxes,
            gt_classes,
            tuple(anchors.float().contiguous() for anchors in cell_anchors),
            tuple(map(float, cells)),
            tuple(float(maps.shape[3]) for maps in deltas),
            tuple(map(float, strides)),
            tuple(float(weight) for weight in weights),
            anchor_scale or 1.0,
            alpha,
            gamma,
            smooth_l1_beta,
            box_loss_weight,
            num_classes,
            num_anchors,
            matches.shape[1],
            float(pixel_extent),
            CHANNELS_LAST=not all(maps.is_contiguous() for maps in (*logits, *deltas, *centerness)),
            OFFSET=offset,
            SQUARE=gamma == 2,
            SMOOTH_L1=smooth_l1_beta >= 0,
            OF_POINTS=not weights,
        )
    return sums.sum(0), gradient


def scaled_with_triton(gradient, sizes, factors, dtype):
    """`..fused_losses.scaled` in one kernel."""
    result = torch.empty_like(gradient, dtype=dtype)
    with torch.cuda.device_of(gradient):
        scale[(triton.cdiv(len(gradient), SCALED.value),)](
            gradient, factors.contiguous(), result, float(sizes[0]), float(sizes[0] + sizes[1]), float(len(gradient))
        )
    return result


@triton.jit
def scale(gradient, factors, result, end_of_first, end_of_second, end):
    at = tl.program_id(0).to(tl.int64) * SCALED + tl.arange(0, SCALED)
    last = tl.where(at < tl.cast(end_of_second, tl.int64), tl.load(factors + 1), tl.load(factors + 2))
    factor = tl.where(at < tl.cast(end_of_first, tl.int64), tl.load(factors), last)
    inside = at < tl.cast(end, tl.int64)
    tl.store(result + at, tl.load(gradient + at, mask=inside).to(tl.float32) * factor, mask=inside)


@triton.jit(do_not_specialize=["num_classes", "num_anchors", "num_rows"])
def add_losses(
    logits, deltas, centerness, grad_logits, grad_deltas, grad_centerness, sums, matches, first, gt_boxes, gt_classes,
    cell_anchors, cells, widths, strides, weights, anchor_scale, alpha, gamma, beta, box_loss_weight, num_classes,
    num_anchors, num_rows, pixel_extent,
    CHANNELS_LAST: tl.constexpr, OFFSET: tl.constexpr, SQUARE: tl.constexpr, SMOOTH_L1: tl.constexpr,
    OF_POINTS: tl.constexpr,
):  # fmt: skip
    """One program per block of cells and anchor of a cell (axis 0), block of classes (axis 1) and image (axis 2)."""
    block, image = tl.program_id(0) // num_anchors, tl.program_id(2).to(tl.int64)
    anchor = (tl.program_id(0) % num_anchors).to(tl.int64)
    of_map = image * num_anchors + anchor
    num_images = tl.num_programs(2).to(tl.int64)
    loss_cls, loss_box, loss_centerness, number, weight_sum = 0.0, 0.0, 0.0, 0.0, 0.0
    first_block, first_cell = 0, tl.zeros([], tl.int64)
    for level in tl.static_range(len(logits)):
        num_cells = tl.cast(cells[level], tl.int64)
        num_blocks = tl.cast((num_cells + CELLS - 1) // CELLS, tl.int32)
        if (block >= first_block) & (block < first_block + num_blocks):
            cell = (block - first_block).to(tl.int64) * CELLS + tl.arange(0, CELLS)
            exists = cell < num_cells
            row = (first_cell + cell) * num_anchors + anchor
            match = tl.load(matches + image * num_rows + row, mask=exists, other=_IGNORED)
            positive = match >= 0
            matched = match + tl.load(first + image)
            target_class = tl.load(gt_classes + matched, mask=positive, other=-1)
            before = first_cell * num_images * num_anchors  # numbers per channel in the maps of finer levels

            label = tl.program_id(1).to(tl.int64) * CLASSES + tl.arange(0, CLASSES)[:, None]
            inside = (label < num_classes) & exists[None, :]
            if CHANNELS_LAST:
                place, step = (image * num_cells + cell) * num_anchors + anchor, 1
                at_class, at_box = place[None, :] * num_classes + label, place * 4
            else:
                place, step = of_map * num_cells + cell, num_cells
                at_class = (of_map * num_classes + label) * num_cells + cell[None, :]
                at_box = of_map * 4 * num_cells + cell
            x = tl.load(logits[level] + at_class, mask=inside, other=0.0).to(tl.float32)
            is_target = label == target_class[None, :]
            counts = inside & (match != _IGNORED)[None, :]
            class_loss, class_slope = focal_terms(tl.where(is_target, -x, x), gamma, SQUARE)
            factor = tl.where(is_target, alpha, 1 - alpha)
            loss_cls += tl.sum(tl.where(counts, class_loss * factor, 0.0))
            class_slope *= tl.where(is_target, -factor, factor)
            tl.store(grad_logits + before * num_classes + at_class, tl.where(counts, class_slope, 0.0), mask=inside)

            if tl.program_id(1) == 0:
                box = gt_boxes + matched * 4
                left, top = tl.load(box, mask=positive, other=0.0), tl.load(box + 1, mask=positive, other=0.0)
                right, bottom = tl.load(box + 2, mask=positive, other=0.0), tl.load(box + 3, mask=positive, other=0.0)
                width_of_level, of_cell = tl.cast(widths[level], tl.int64), cell_anchors[level] + anchor * 4
                center_x = ((cell % width_of_level).to(tl.float32) + OFFSET) * strides[level]
                center_y = ((cell // width_of_level).to(tl.float32) + OFFSET) * strides[level]
                x1, y1 = center_x + tl.load(of_cell), center_y + tl.load(of_cell + 1)
                x2, y2 = center_x + tl.load(of_cell + 2), center_y + tl.load(of_cell + 3)
                point_x, point_y = (x1 + x2 + pixel_extent) / 2, (y1 + y2 + pixel_extent) / 2
                weight = tl.where(positive, 1.0, 0.0)
                if len(centerness) > 0:
                    ratio = side_ratio(point_x - left, right - point_x) * side_ratio(point_y - top, bottom - point_y)
                    weight = tl.where(positive, tl.sqrt_rn(ratio), 0.0)
                    y = tl.load(centerness[level] + place, mask=exists, other=0.0).to(tl.float32)
                    probability, _, softplus = logistic(y)
                    loss_centerness += tl.sum(tl.where(positive, softplus - y * weight, 0.0))
                    slope_y = tl.where(positive, probability - weight, 0.0)
                    tl.store(grad_centerness + before + place, slope_y, mask=exists)
                number += tl.sum(tl.where(positive, 1.0, 0.0))
                weight_sum += tl.sum(weight)

                box_at = deltas[level] + at_box
                dx = tl.load(box_at, mask=exists, other=0.0).to(tl.float32)
                dy = tl.load(box_at + step, mask=exists, other=0.0).to(tl.float32)
                dw = tl.load(box_at + 2 * step, mask=exists, other=0.0).to(tl.float32)
                dh = tl.load(box_at + 3 * step, mask=exists, other=0.0).to(tl.float32)
                width, height = x2 - x1, y2 - y1
                stride = tl.sqrt_rn(width * height) / anchor_scale
                if SMOOTH_L1:
                    if OF_POINTS:
                        half_pixel = pixel_extent / 2
                        tx, tw = (point_x - half_pixel - left) / stride, (right - point_x - half_pixel) / stride
                        ty, th = (point_y - half_pixel - top) / stride, (bottom - point_y - half_pixel) / stride
                    else:
                        # Without a match any box does: logarithms of 0 are not finite.
                        right, bottom = tl.where(positive, right, 1.0), tl.where(positive, bottom, 1.0)
                        tx = ((left + right) / 2 - point_x) / width * weights[0]
                        ty = ((top + bottom) / 2 - point_y) / height * weights[1]
                        tw = tl.log((right - left) / width) * weights[2]
                        th = tl.log((bottom - top) / height) * weights[3]
                    loss_x, slope_x = smooth_l1_terms(dx - tx, beta)
                    loss_y, slope_y = smooth_l1_terms(dy - ty, beta)
                    loss_w, slope_w = smooth_l1_terms(dw - tw, beta)
                    loss_h, slope_h = smooth_l1_terms(dh - th, beta)
                    loss = loss_x + loss_y + loss_w + loss_h
                else:
                    if OF_POINTS:
                        low_x, high_x = decode_from_point(dx, dw, point_x, stride, pixel_extent)
                        low_y, high_y = decode_from_point(dy, dh, point_y, stride, pixel_extent)
                    else:
                        low_x, high_x = decode_from_box(dx / weights[0], dw / weights[2], point_x, width)
                        low_y, high_y = decode_from_box(dy / weights[1], dh / weights[3], point_y, height)
                    side_x, common_x, extent_x = lengths(low_x, high_x, left, right)
                    side_y, common_y, extent_y = lengths(low_y, high_y, top, bottom)
                    overlap_x, overlap_y = tl.maximum(common_x, 0.0), tl.maximum(common_y, 0.0)
                    intersection, enclosing = overlap_x * overlap_y, extent_x * extent_y + _GIOU_EPS
                    union = side_x * side_y + (right - left) * (bottom - top) - intersection + _GIOU_EPS
                    iou = intersection / union
                    loss = 1 - iou + (enclosing - union) / enclosing
                    by_area = iou / union - 1 / enclosing
                    by_overlap = 1 / enclosing - (1 + iou) / union
                    by_extent = union / enclosing / enclosing
                    of_overlap, of_extent = by_overlap * overlap_y * not_negative(common_x), by_extent * extent_y
                    to_low_x, to_high_x = slopes(low_x, high_x, left, right, of_overlap, by_area * side_y, of_extent)
                    of_overlap, of_extent = by_overlap * overlap_x * not_negative(common_y), by_extent * extent_x
                    to_low_y, to_high_y = slopes(low_y, high_y, top, bottom, of_overlap, by_area * side_x, of_extent)
                    if OF_POINTS:
                        slope_x, slope_w = -to_low_x * stride * not_negative(dx), to_high_x * stride * not_negative(dw)
                        slope_y, slope_h = -to_low_y * stride * not_negative(dy), to_high_y * stride * not_negative(dh)
                    else:
                        slope_x, slope_y = (
                            (to_low_x + to_high_x) * width / weights[0],
                            (to_low_y + to_high_y) * height / weights[1],
                        )
                        slope_w = (to_high_x - to_low_x) * side_x / 2 / weights[2] * unclamped(dw / weights[2])
                        slope_h = (to_high_y - to_low_y) * side_y / 2 / weights[3] * unclamped(dh / weights[3])
                weight *= box_loss_weight
                loss_box += tl.sum(tl.where(positive, loss * weight, 0.0))
                at = grad_deltas + before * 4 + at_box
                tl.store(at, tl.where(positive, slope_x * weight, 0.0), mask=exists)
                tl.store(at + step, tl.where(positive, slope_y * weight, 0.0), mask=exists)
                tl.store(at + 2 * step, tl.where(positive, slope_w * weight, 0.0), mask=exists)
                tl.store(at + 3 * step, tl.where(positive, slope_h * weight, 0.0), mask=exists)
        first_block += num_blocks
        first_cell += num_cells
    program = (tl.program_id(2) * tl.num_programs(1) + tl.program_id(1)) * tl.num_programs(0) + tl.program_id(0)
    tl.store(sums + program * 6, loss_cls)
    tl.store(sums + program * 6 + 1, loss_box)
    tl.store(sums + program * 6 + 2, loss_centerness)
    tl.store(sums + program * 6 + 3, number)
    tl.store(sums + program * 6 + 4, weight_sum)
    tl.store(sums + program * 6 + 5, number)


@triton.jit
def logistic(x):
    """sigmoid(x), 1 - sigmoid(x) and softplus(x), accurate for x of any size."""
    small = tl.exp(-tl.abs(x))
    total = 1 + small
    # log(1 + small) without the rounding error of the sum
    log = tl.where(total == 1, small, tl.log(total) * (small / tl.where(total == 1, 1.0, total - 1)))
    return tl.where(x >= 0, 1.0, small) / total, tl.where(x >= 0, small, 1.0) / total, tl.maximum(x, 0.0) + log


@triton.jit
def focal_terms(x, gamma, SQUARE: tl.constexpr):
    """p^gamma softplus(x) and its derivative, for p = sigmoid(x)."""
    p, complement, softplus = logistic(x)
    power = p * p if SQUARE else tl.exp(gamma * tl.log(p))
    return power * softplus, power * (gamma * complement * softplus + p)


@triton.jit
def side_ratio(before, behind):
    return tl.maximum(tl.minimum(before, behind), 0.0) / tl.maximum(tl.maximum(before, behind), 1e-12)


@triton.jit
def decode_from_box(shift, log_ratio, center, side):
    center += shift * side
    half = side * tl.exp(tl.minimum(log_ratio, _MAX_LOG_RATIO)) / 2
    return center - half, center + half


@triton.jit
def decode_from_point(before, behind, point, stride, pixel_extent):
    low = point - pixel_extent / 2 - tl.maximum(before, 0.0) * stride
    return low, point + pixel_extent / 2 + tl.maximum(behind, 0.0) * stride


@triton.jit
def lengths(low, high, target_low, target_high):
    """Lengths on one axis: of the box, of its overlap with the target (negative without one), of both together."""
    common = tl.minimum(high, target_high) - tl.maximum(low, target_low)
    return high - low, common, tl.maximum(high, target_high) - tl.minimum(low, target_low)


@triton.jit
def slopes(low, high, target_low, target_high, of_overlap, of_side, of_extent):
    """Derivatives by the ends of a box on one axis, from those by the lengths."""
    to_low = of_overlap * share(low - target_low) + of_side + of_extent * share(target_low - low)
    to_high = of_overlap * share(target_high - high) + of_side + of_extent * share(high - target_high)
    return -to_low, to_high


@triton.jit
def share(difference):
    """Share of a minimum's gradient: one half if both are equal."""
    return tl.where(difference > 0, 1.0, tl.where(difference == 0, 0.5, 0.0))


@triton.jit
def not_negative(x):
    return tl.where(x >= 0, 1.0, 0.0)


@triton.jit
def smooth_l1_terms(difference, beta):
    size = tl.abs(difference)
    loss = tl.where(size < beta, difference * difference / (2 * beta), size - beta / 2)
    return loss / 4, tl.minimum(tl.maximum(difference / beta, -1.0), 1.0) / 4


@triton.jit
def unclamped(log_ratio):
    return tl.where(log_ratio <= _MAX_LOG_RATIO, 1.0, 0.0)
