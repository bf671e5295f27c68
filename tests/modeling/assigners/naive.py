"""The rules, one object, level and anchor at a time, as their sources define them.

Each function takes levels (lists of anchors, x1 y1 x2 y2), objects (those without area or with coordinates that are not
finite match nothing) and the rule's parameters. It gives the matches of one image, and whether a tie stood anywhere on
the way.
"""

import math

BACKGROUND, IGNORED = -1, -2
MARGIN = 0.01
# Comparisons closer than this (relative) are ties: rounding decides them.
TIE = 1e-5


def naive_atss(levels, objects, k, num_per_cell):
    """Algorithm 1 of the paper, in exact order of its lines."""
    anchors, tie = [anchor for level in levels for anchor in level], False
    best = [(0.0, BACKGROUND)] * len(anchors)
    for index, box in enumerate(objects):
        if not has_area(box):
            continue
        candidates, first = [], 0
        for level in levels:
            chosen, tied = nearest(level, box, k * num_per_cell)
            candidates += [first + i for i in chosen]
            tie |= tied
            first += len(level)
        ious = [iou(anchors[i], box) for i in candidates]
        mean = sum(ious) / len(ious)
        std = math.sqrt(sum((x - mean) ** 2 for x in ious) / (len(ious) - 1)) if len(ious) > 1 else 0.0
        for i, overlap in zip(candidates, ious, strict=True):
            tie |= close_to_margin(anchors[i], box)
            if not inside(anchors[i], box) > MARGIN:
                continue
            tie |= close(overlap, mean + std) and len(ious) > 1
            if overlap >= mean + std:
                tie |= close(overlap, best[i][0])
                if overlap > best[i][0]:
                    best[i] = (overlap, index)
    return [index for _, index in best], tie


def nearest(level, box, count):
    """Indices of the anchors nearest to the box's centre, and whether the last of them and the next are equally far.

    Anchors of one cell are equally far and stay together: this compares the last cell in with the first cell out.
    """
    order = sorted(range(len(level)), key=lambda i: (distance(level[i], box), i))
    border = [distance(level[i], box) for i in order[count - 1 : count + 1]]
    return order[:count], len(border) == 2 and close(*border)


def naive_iou(levels, objects, positive, negative, center_in_box):
    """RetinaNet: thresholds, and every object keeps its best anchors."""
    anchors, tie = [anchor for level in levels for anchor in level], False
    ious = [[iou(a, box) for a in anchors] if has_area(box) else [0.0] * len(anchors) for box in objects]
    matches, winners = [], []
    for a in range(len(anchors)):
        of_anchor = [row[a] for row in ious]
        best = max(of_anchor, default=0.0)
        winners.append(of_anchor.index(best) if best > 0 else BACKGROUND)
        tie |= close(best, positive) or close(best, negative)
        matches.append(winners[a] if best >= positive else IGNORED if best >= negative else BACKGROUND)
    for box, row in zip(objects, ious, strict=True):
        best = max(row)
        kept = [a for a in range(len(anchors)) if row[a] > 0 and close(row[a], best)]
        # Anchors of one shape that hold the object, or lie in it, have the same IoU. Others that come near it are ties.
        lengths, sides = [overlap(anchors[a], box) for a in kept], [overlap(anchors[a], anchors[a]) for a in kept]
        tie |= any(
            abs(x - y) > 1e-3 for values in (lengths, sides) for v in values for x, y in zip(v, values[0], strict=True)
        )
        for a in kept:
            matches[a] = winners[a]
    for a, match in enumerate(matches):
        if match == BACKGROUND:
            continue
        of_anchor = sorted((row[a] for row in ious), reverse=True)
        tie |= len(of_anchor) > 1 and of_anchor[1] > 0 and close(of_anchor[0], of_anchor[1])
        if center_in_box and match >= 0:
            tie |= close_to_margin(anchors[a], objects[match])
            if not inside(anchors[a], objects[match]) > MARGIN:
                matches[a] = IGNORED
    return matches, tie


def naive_scale_range(levels, objects, ranges):
    """FCOS: inside the object, farthest side in the level's range, smallest object first."""
    return in_ranges(levels, objects, ranges, lambda level, box: (range(len(level)), False))


def naive_center_sampling(levels, objects, ranges, k, num_per_cell):
    """The same among the k cells of every level that are nearest to the object's centre."""
    return in_ranges(levels, objects, ranges, lambda level, box: nearest(level, box, k * num_per_cell))


def in_ranges(levels, objects, ranges, candidates):
    matches, smallest, tie = [[BACKGROUND] * len(level) for level in levels], {}, False
    for index, box in enumerate(objects):
        if not has_area(box):
            continue
        area = (box[2] - box[0]) * (box[3] - box[1])
        for number, (level, (low, high)) in enumerate(zip(levels, ranges, strict=True)):
            chosen, tied = candidates(level, box)
            tie |= tied
            for i in chosen:
                anchor = level[i]
                x, y = center(anchor)
                farthest = max(x - box[0], y - box[1], box[2] - x, box[3] - y)
                tie |= close_to_margin(anchor, box)
                if not inside(anchor, box) > MARGIN:
                    continue
                tie |= close(farthest, low) or close(farthest, high)
                if low <= farthest <= high:
                    before = smallest.get((number, i), float("inf"))
                    tie |= close(area, before)
                    if area < before:
                        smallest[number, i], matches[number][i] = area, index
    return [match for level in matches for match in level], tie


def naive_topk_iou(levels, objects, k):
    """The k anchors with the highest IoU less a thousandth of their relative distance."""
    anchors, tie = [anchor for level in levels for anchor in level], False
    farthest = max((distance(a, box) ** 0.5 for a in anchors for box in objects if has_area(box)), default=1.0)
    best = [(0.0, BACKGROUND)] * len(anchors)
    for index, box in enumerate(objects):
        if not has_area(box):
            continue
        scores = [iou(a, box) - distance(a, box) ** 0.5 / farthest / 1000 for a in anchors]
        order = sorted(range(len(anchors)), key=lambda i, scores=scores: (-scores[i], i))
        border = [scores[i] for i in order[k - 1 : k + 1]]
        tie |= len(border) == 2 and border[0] - border[1] < 1e-6
        for i in order[:k]:
            tie |= close_to_margin(anchors[i], box)
            if inside(anchors[i], box) > MARGIN:
                overlap_of_both = iou(anchors[i], box)
                tie |= close(overlap_of_both, best[i][0])
                if overlap_of_both > best[i][0]:
                    best[i] = (overlap_of_both, index)
    return [index for _, index in best], tie


def close(a, b):
    return abs(a - b) <= TIE * max(abs(a), abs(b))


def center(box):
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


def distance(a, b):
    (ax, ay), (bx, by) = center(a), center(b)
    return (ax - bx) ** 2 + (ay - by) ** 2


def iou(a, b):
    intersection = math.prod(overlap(a, b))
    return intersection / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - intersection)


def inside(anchor, box):
    x, y = center(anchor)
    return min(x - box[0], y - box[1], box[2] - x, box[3] - y)


def has_area(box):
    return all(map(math.isfinite, box)) and box[2] > box[0] and box[3] > box[1]


def close_to_margin(anchor, box):
    return abs(inside(anchor, box) - MARGIN) <= 1e-6 * (1 + max(map(abs, box)))


def overlap(anchor, box):
    """Lengths on both axes."""
    return [max(0.0, min(anchor[i + 2], box[i + 2]) - max(anchor[i], box[i])) for i in (0, 1)]
