"""Algorithm 1 of the paper in two kernels: positives of every ground truth box, then the match of every anchor.

The first kernel writes the positives of each box, and BACKGROUND for each anchor; the second resolves conflicts, one
image per program. There are no copies from or to the host and no synchronisation, and launches depend on shapes alone,
so that both can be part of a CUDA graph. Every step has the same arithmetic as `..atss`, rounding included: the kernels
must be compiled with `enable_fp_fusion=False`.
"""

import torch
import triton
import triton.language as tl

from ..matches import BACKGROUND, INDEX_BITS, INDEX_MASK, INSIDE_MARGIN, unmatched
from ..nearest import FAR, FRACTION_BITS, UNIT, pairs_of_ranks, reach

# Anchors that a program of the first kernel sets to BACKGROUND at a time; slots that one of the second reads at a time.
FILL_BLOCK = tl.constexpr(2048)
SLOT_BLOCK = tl.constexpr(2048)
_BACKGROUND, _INDEX_BITS, _INDEX_MASK = tl.constexpr(BACKGROUND), tl.constexpr(INDEX_BITS), tl.constexpr(INDEX_MASK)
_FAR, _FRACTION_BITS, _UNIT = tl.constexpr(FAR), tl.constexpr(FRACTION_BITS), tl.constexpr(UNIT)


def assign_with_triton(grid, gt_boxes, ignore_boxes, k, invalid):
    """The matches (N, R) of a batch on a CUDA device; arguments as in `Assigner`, `invalid` is its `InvalidBoxes`."""
    counts, num_images, num_anchors = [len(boxes) for boxes in gt_boxes], len(gt_boxes), len(grid)
    num_boxes, num_candidates = sum(counts), grid.num_candidates(k)
    if ignore_boxes is None:
        matches = torch.empty(num_images, num_anchors, dtype=torch.int64, device=grid.device)
    else:
        matches = unmatched(grid, num_images, ignore_boxes)
    if not num_images:
        return matches
    keys = torch.empty(num_boxes, num_candidates, dtype=torch.int64, device=grid.device)
    key_anchors = torch.empty(num_boxes, num_candidates, dtype=torch.int32, device=grid.device)
    num_positives = torch.empty(num_boxes, dtype=torch.int32, device=grid.device)

    num_programs = max(*counts, triton.cdiv(num_anchors, 4 * FILL_BLOCK.value))
    heights, widths = zip(*grid.shapes, strict=True)
    sizes = (len(grid.shapes), len(pairs_of_ranks(k)), grid.num_per_cell)
    log_levels, log_pairs, log_per_cell = ((size - 1).bit_length() for size in sizes)
    with torch.cuda.device_of(matches):
        find_positives[num_programs, num_images](
            matches,
            keys,
            key_anchors,
            num_positives,
            invalid.on_device(grid.device),
            tuple(boxes.float().contiguous() for boxes in gt_boxes),
            as_floats(counts),
            as_floats(heights),
            as_floats(widths),
            as_floats(grid.strides),
            tuple(anchors.float().contiguous() for anchors in grid.cell_anchors),
            num_anchors,
            num_candidates,
            OFFSET=grid.offset,
            FIXED_OFFSET=round(grid.offset * UNIT),
            MARGIN=INSIDE_MARGIN,
            FILL=ignore_boxes is None,
            K=k,
            REACH=reach(k),
            NUM_PAIRS=len(pairs_of_ranks(k)),
            NUM_PER_CELL=grid.num_per_cell,
            LOG_LEVELS=log_levels,
            LOG_PAIRS=log_pairs,
            LOG_PER_CELL=log_per_cell,
            num_warps=min(16, max(1, 1 << log_levels + log_pairs + log_per_cell >> 8)),
            enable_fp_fusion=False,
        )
        if num_boxes:
            resolve_conflicts[(num_images,)](
                matches, keys, key_anchors, num_positives, as_floats(counts), num_anchors, num_candidates, num_warps=16
            )
    invalid.report_later(grid.device)
    return matches


def as_floats(numbers):
    """Triton specialises kernels on integers in tuples that are 1 or divisible by 16: floats avoid recompilation."""
    return tuple(float(number) for number in numbers)


@triton.jit(do_not_specialize=["num_anchors", "num_candidates"])
def find_positives(
    matches, keys, key_anchors, num_positives, num_invalid, boxes, counts, heights, widths, strides, cell_anchors,
    num_anchors, num_candidates,
    OFFSET: tl.constexpr, FIXED_OFFSET: tl.constexpr, MARGIN: tl.constexpr, FILL: tl.constexpr,
    K: tl.constexpr, REACH: tl.constexpr, NUM_PAIRS: tl.constexpr, NUM_PER_CELL: tl.constexpr,
    LOG_LEVELS: tl.constexpr, LOG_PAIRS: tl.constexpr, LOG_PER_CELL: tl.constexpr,
):  # fmt: skip
    """One program per ground truth box (axis 0) and image (axis 1); the programs of an image share its anchors."""
    LEVELS: tl.constexpr = 1 << LOG_LEVELS
    PAIRS: tl.constexpr = 1 << LOG_PAIRS
    PER_CELL: tl.constexpr = 1 << LOG_PER_CELL
    box, image = tl.program_id(0), tl.program_id(1)
    if FILL:
        for first in range(box * FILL_BLOCK, num_anchors, tl.num_programs(0) * FILL_BLOCK):
            anchors = first + tl.arange(0, FILL_BLOCK)
            row_of_matches = matches + image.to(tl.int64) * num_anchors
            tl.store(row_of_matches + anchors, tl.full([FILL_BLOCK], _BACKGROUND, tl.int64), mask=anchors < num_anchors)

    # The box, and its index in the batch.
    x1, y1, x2, y2, index, exists = 0.0, 0.0, 0.0, 0.0, box.to(tl.int64), box < 0
    for i in tl.static_range(len(boxes)):
        count = tl.cast(counts[i], tl.int32)
        in_image = (image == i) & (box < count)
        exists |= in_image
        index += tl.where(image > i, count, 0)
        x1 += tl.load(boxes[i] + box * 4, mask=in_image, other=0.0)
        y1 += tl.load(boxes[i] + box * 4 + 1, mask=in_image, other=0.0)
        x2 += tl.load(boxes[i] + box * 4 + 2, mask=in_image, other=0.0)
        y2 += tl.load(boxes[i] + box * 4 + 3, mask=in_image, other=0.0)
    if exists:
        width, height = x2 - x1, y2 - y1
        valid = (width > 0) & (width < float("inf")) & (height > 0) & (height < float("inf"))
        tl.atomic_add(num_invalid, 1, mask=valid == 0, sem="relaxed")
        x1, y1 = tl.where(valid, x1, 0.0), tl.where(valid, y1, 0.0)
        x2, y2 = tl.where(valid, x2, 0.0), tl.where(valid, y2, 0.0)
        width, height = x2 - x1, y2 - y1

        # The levels and the pairs of ranks, padded to powers of two: padding has size 0 and is never near.
        level = tl.arange(0, LEVELS)
        in_cell = tl.arange(0, PER_CELL)[None, None, :]
        rows, columns = tl.zeros([LEVELS], tl.int64), tl.zeros([LEVELS], tl.int64)
        stride, first_cell = tl.full([LEVELS], 1.0, tl.float32), tl.zeros([LEVELS], tl.int64)
        num_cells = tl.zeros([], tl.int64)
        low_x, low_y = tl.zeros([LEVELS, 1, PER_CELL], tl.float32), tl.zeros([LEVELS, 1, PER_CELL], tl.float32)
        high_x, high_y = tl.zeros([LEVELS, 1, PER_CELL], tl.float32), tl.zeros([LEVELS, 1, PER_CELL], tl.float32)
        for i in tl.static_range(len(heights)):
            here = level == i
            height_here, width_here = tl.cast(heights[i], tl.int64), tl.cast(widths[i], tl.int64)
            rows = tl.where(here, height_here, rows)
            columns = tl.where(here, width_here, columns)
            stride = tl.where(here, strides[i], stride)
            first_cell = tl.where(here, num_cells, first_cell)
            num_cells += height_here * width_here
            anchor = cell_anchors[i] + in_cell * 4
            mask = here[:, None, None] & (in_cell < NUM_PER_CELL)
            low_x += tl.load(anchor, mask=mask, other=0.0)
            low_y += tl.load(anchor + 1, mask=mask, other=0.0)
            high_x += tl.load(anchor + 2, mask=mask, other=0.0)
            high_y += tl.load(anchor + 3, mask=mask, other=0.0)
        rows, columns, stride, first_cell = rows[:, None], columns[:, None], stride[:, None], first_cell[:, None]

        pair = tl.arange(0, PAIRS)[None, :].to(tl.int64)
        column_rank, row_rank, start = pair * 0 + 1, pair * 0 + 1, 0
        for row in tl.static_range(K // 2):
            column_rank = tl.where((pair >= start) & (pair < start + K // (row + 1)), pair - start + 1, column_rank)
            row_rank = tl.where(pair >= start, row + 1, row_rank)
            start += K // (row + 1)
        row_rank = tl.where(pair >= start, pair - start + K // 2 + 1, row_rank)

        # Lines 3 to 6: the candidates.
        column, distance_x = ranked_position(x1, x2, columns, stride, column_rank, 1, K, REACH, FIXED_OFFSET)
        row, distance_y = ranked_position(y1, y2, rows, stride, row_rank, K, K, REACH, FIXED_OFFSET)
        distance = tl.where(pair < NUM_PAIRS, distance_x + distance_y, 2 * _FAR)
        nearer = tl.zeros([LEVELS, PAIRS], tl.int32)
        for other in range(NUM_PAIRS):
            nearer += (tl.sum(tl.where(pair == other, distance, 0), axis=1)[:, None] < distance).to(tl.int32)
        chosen = ((nearer < K) & (distance < _FAR))[:, :, None] & (in_cell < NUM_PER_CELL)
        center_x = ((column.to(tl.float32) + OFFSET) * stride)[:, :, None]
        center_y = ((row.to(tl.float32) + OFFSET) * stride)[:, :, None]

        # Line 7: their IoUs.
        common_x = tl.minimum(center_x + high_x, x2) - tl.maximum(center_x + low_x, x1)
        common_y = tl.minimum(center_y + high_y, y2) - tl.maximum(center_y + low_y, y1)
        common = tl.maximum(common_x, 0.0) * tl.maximum(common_y, 0.0)
        areas = (high_x - low_x) * (high_y - low_y) + width * height
        iou = tl.where(chosen, tl.div_rn(common, tl.where(chosen, areas - common, 1.0)), 0.0)

        # Lines 8 to 10: mean and standard deviation.
        mean = ordered_sum(iou, LOG_LEVELS, LOG_PAIRS, LOG_PER_CELL) / num_candidates.to(tl.float64)
        deviation = tl.where(chosen, iou - mean.to(tl.float32), 0.0)
        squares = ordered_sum(deviation * deviation, LOG_LEVELS, LOG_PAIRS, LOG_PER_CELL)
        std = tl.sqrt(squares / tl.maximum(num_candidates - 1, 1).to(tl.float64))
        threshold = tl.where(valid, tl.maximum((mean + std).to(tl.float32), 1.1754943508222875e-38), float("inf"))

        # Lines 11 to 15.
        margin_x = tl.minimum(center_x - x1, x2 - center_x)
        margin_y = tl.minimum(center_y - y1, y2 - center_y)
        positive = (iou >= threshold) & (tl.minimum(margin_x, margin_y) > MARGIN)

        anchor = (first_cell + row * columns + column)[:, :, None] * NUM_PER_CELL + in_cell
        key = (iou.to(tl.int32, bitcast=True).to(tl.int64) << _INDEX_BITS) | (_INDEX_MASK - box.to(tl.int64))
        positive = tl.reshape(positive, [LEVELS * PAIRS * PER_CELL])
        nth = tl.cumsum(positive.to(tl.int32), 0)
        at = index * num_candidates + nth - 1
        tl.store(keys + at, tl.reshape(key, [LEVELS * PAIRS * PER_CELL]), mask=positive)
        tl.store(key_anchors + at, tl.reshape(anchor.to(tl.int32), [LEVELS * PAIRS * PER_CELL]), mask=positive)
        tl.store(num_positives + index, tl.sum(positive.to(tl.int32), 0))


@triton.jit
def ranked_position(
    low, high, size, stride, rank, step, K: tl.constexpr, REACH: tl.constexpr, FIXED_OFFSET: tl.constexpr
):
    """The column (or row) of each rank and its distance, see `nearest.ranked_positions`."""
    center = (low.to(tl.float64) + high.to(tl.float64)) / (stride.to(tl.float64) * (2 / _UNIT))
    center = tl.floor(center + 0.5) - FIXED_OFFSET
    center = tl.minimum(tl.maximum(center, -REACH), REACH).to(tl.int64)
    nearest = first_of_nearest(center, size, rank * 0 + 1)
    position = first_of_nearest(center, size, rank) * rank + rank - 1
    position -= first_of_nearest(center, size, rank - 1) * (rank - 1)
    steps = position - nearest
    twice = (nearest * _UNIT - center) * (2 * K * K) + step
    distance = (steps * (_UNIT * K * K) + twice) * steps
    return position, tl.where(rank > size, _FAR, distance)


@triton.jit
def first_of_nearest(center, size, count):
    """The first of the `count` nearest columns (or rows)."""
    first = (center + (_UNIT - 1 - count * (_UNIT // 2))) >> _FRACTION_BITS
    return tl.minimum(tl.maximum(first, 0), size - count)


@triton.jit
def ordered_sum(values, LOG_LEVELS: tl.constexpr, LOG_PAIRS: tl.constexpr, LOG_PER_CELL: tl.constexpr):
    """Sum in float64 of float32 (LEVELS, PAIRS, PER_CELL), in the order of `..atss.ordered_sum`."""
    values = values.to(tl.float64)
    for i in tl.static_range(LOG_PER_CELL):
        values = tl.sum(tl.reshape(values, [1 << LOG_LEVELS, 1 << LOG_PAIRS, 2, 1 << LOG_PER_CELL - 1 - i]), axis=2)
    values = tl.reshape(values, [1 << LOG_LEVELS, 1 << LOG_PAIRS])
    for i in tl.static_range(LOG_PAIRS):
        values = tl.sum(tl.reshape(values, [1 << LOG_LEVELS, 2, 1 << LOG_PAIRS - 1 - i]), axis=1)
    values = tl.reshape(values, [1 << LOG_LEVELS])
    for i in tl.static_range(LOG_LEVELS):
        values = tl.sum(tl.reshape(values, [2, 1 << LOG_LEVELS - 1 - i]), axis=0)
    return tl.sum(values, axis=0)


@triton.jit
def slots_from(start, key_anchors, num_positives, count, num_candidates):
    """The next SLOT_BLOCK slots of an image: their indices, their anchors, and which of them are filled."""
    at = start + tl.arange(0, SLOT_BLOCK)
    box = at // num_candidates
    mask = at - box * num_candidates < tl.load(num_positives + box, mask=box < count, other=0)
    return at, tl.load(key_anchors + at, mask=mask, other=0), mask


@triton.jit(do_not_specialize=["num_anchors", "num_candidates"])
def resolve_conflicts(matches, keys, key_anchors, num_positives, counts, num_anchors, num_candidates):
    """One program per image: every anchor takes the largest key, then the index of its ground truth box."""
    image = tl.program_id(0)
    count, first = 0, tl.zeros([], tl.int64)
    for i in tl.static_range(len(counts)):
        count_here = tl.cast(counts[i], tl.int32)
        count = tl.where(image == i, count_here, count)
        first += tl.where(image > i, count_here, 0)
    matches += image.to(tl.int64) * num_anchors
    keys += first * num_candidates
    key_anchors += first * num_candidates
    num_positives += first

    for start in range(0, count * num_candidates, SLOT_BLOCK):
        at, anchor, mask = slots_from(start, key_anchors, num_positives, count, num_candidates)
        tl.atomic_max(matches + anchor, tl.load(keys + at, mask=mask, other=0), mask=mask, sem="relaxed")
    tl.debug_barrier()
    for start in range(0, count * num_candidates, SLOT_BLOCK):
        at, anchor, mask = slots_from(start, key_anchors, num_positives, count, num_candidates)
        best = tl.load(matches + anchor, mask=mask, other=0, cache_modifier=".cg")
        # If it is no larger than an index, another positive of the same anchor has been written already.
        tl.store(matches + anchor, tl.where(best > _INDEX_MASK, _INDEX_MASK - (best & _INDEX_MASK), best), mask=mask)
