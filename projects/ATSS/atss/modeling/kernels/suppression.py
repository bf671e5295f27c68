"""Non-maximum suppression of all images in one kernel, without waiting for the GPU.

A program works on one image. Again and again it takes the box with the best score and sets the scores of the boxes that
overlap it to 0, until it has as many as are needed. Boxes need no order.
"""

import torch
import triton
import triton.language as tl

BLOCK = tl.constexpr(1024)


def suppress_with_triton(boxes, scores, classes, iou_threshold, number):
    """`..inference.suppress` on a GPU, of which it keeps the best `number` boxes of each image, and no others.

    Args:
        boxes, scores, classes: (N, B, 4) float32, (N, B) float32 and (N, B) int64.
        iou_threshold: see `suppress`.
        number: maximum number of boxes per image.

    Returns:
        (N, B) bool.
    """
    kept = torch.zeros_like(scores, dtype=torch.int8)
    with torch.cuda.device_of(boxes):
        keep_best[(len(boxes),)](
            boxes.contiguous(),
            # The kernel writes into the scores.
            scores.clone(memory_format=torch.contiguous_format),
            classes.contiguous(),
            kept,
            scores.shape[1],
            number,
            float(iou_threshold),
            num_warps=8,
        )
    return kept.bool()


@triton.jit(do_not_specialize=["num_boxes", "number"])
def keep_best(boxes, scores, classes, kept, num_boxes, number, iou_threshold):
    """Boxes (N, B, 4), scores (N, B) and classes (N, B); writes 1 into `kept` (N, B)."""
    first = tl.program_id(0).to(tl.int64) * num_boxes
    boxes, scores, classes, kept = boxes + first * 4, scores + first, classes + first, kept + first
    best, score = best_of(scores, num_boxes)
    count = 0
    while (count < number) & (score > 0):
        tl.store(kept + best, 1)
        x1, y1 = tl.load(boxes + best * 4).to(tl.float64), tl.load(boxes + best * 4 + 1).to(tl.float64)
        x2, y2 = tl.load(boxes + best * 4 + 2).to(tl.float64), tl.load(boxes + best * 4 + 3).to(tl.float64)
        of_class, area = tl.load(classes + best), (x2 - x1) * (y2 - y1)
        for start in range(0, num_boxes, BLOCK):
            at = start + tl.arange(0, BLOCK)
            inside = at < num_boxes
            left = tl.load(boxes + at * 4, mask=inside, other=0.0).to(tl.float64)
            top = tl.load(boxes + at * 4 + 1, mask=inside, other=0.0).to(tl.float64)
            right = tl.load(boxes + at * 4 + 2, mask=inside, other=0.0).to(tl.float64)
            bottom = tl.load(boxes + at * 4 + 3, mask=inside, other=0.0).to(tl.float64)
            width = tl.maximum(tl.minimum(right, x2) - tl.maximum(left, x1), 0.0)
            height = tl.maximum(tl.minimum(bottom, y2) - tl.maximum(top, y1), 0.0)
            overlap = width * height
            iou = overlap / (area + (right - left) * (bottom - top) - overlap)
            same_class = tl.load(classes + at, mask=inside, other=-1) == of_class
            tl.store(scores + at, 0.0, mask=inside & (same_class & (iou > iou_threshold) | (at == best)))
        tl.debug_barrier()
        best, score = best_of(scores, num_boxes)
        count += 1


@triton.jit
def best_of(scores, num_boxes):
    """Index and score of the best box, the first of equal ones."""
    # Each place of a block remembers the best box that it has seen there.
    best_score, best = tl.full([BLOCK], 0.0, tl.float32), tl.full([BLOCK], 0, tl.int32)
    for start in range(0, num_boxes, BLOCK):
        at = start + tl.arange(0, BLOCK)
        score = tl.load(scores + at, mask=at < num_boxes, other=0.0)
        better = score > best_score
        best_score, best = tl.where(better, score, best_score), tl.where(better, at, best)
    score = tl.max(best_score, 0)
    return tl.min(tl.where(best_score == score, best, num_boxes), 0), score
