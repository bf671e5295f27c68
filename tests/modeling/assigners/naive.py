"""Algorithm 1 of the paper, one object, level and anchor at a time, in exact order of its lines."""

import math

# Comparisons closer than this (relative) are ties: rounding decides them.
TIE = 1e-5


def naive_atss(levels, objects, k, inside_margin=0.01):
    """Matches of one image.

    Args:
        levels: list of levels, each a list of anchors (x1, y1, x2, y2), and A, the number of anchors per cell.
        objects: list of (x1, y1, x2, y2); those without area or with coordinates that are not finite match nothing.
        k: candidates per level and anchor of a cell.

    Returns:
        list of the index of each anchor's object, -1 for none; and whether a tie stood anywhere on the way.
    """
    anchors, tie = [anchor for level, _ in levels for anchor in level], False
    best = [(0.0, -1)] * len(anchors)
    for index, box in enumerate(objects):
        if not has_area(box):
            continue
        candidates, first = [], 0
        for level, per_cell in levels:
            by_distance = sorted(range(len(level)), key=lambda i, level=level: (distance(level[i], box), i))
            candidates += [first + i for i in by_distance[: k * per_cell]]
            # Anchors of one cell are equally far and stay together: compare the last cell in with the first cell out.
            border = [distance(level[i], box) for i in by_distance[k * per_cell - 1 : k * per_cell + 1]]
            tie |= len(border) == 2 and close(*border)
            first += len(level)
        ious = [iou(anchors[i], box) for i in candidates]
        mean = sum(ious) / len(ious)
        std = math.sqrt(sum((x - mean) ** 2 for x in ious) / (len(ious) - 1)) if len(ious) > 1 else 0.0
        for i, overlap in zip(candidates, ious, strict=True):
            distance_inside = inside(anchors[i], box)
            tie |= abs(distance_inside - inside_margin) <= 1e-6 * (1 + max(map(abs, box)))
            if not distance_inside > inside_margin:
                continue
            tie |= close(overlap, mean + std) and len(ious) > 1
            if overlap >= mean + std:
                tie |= close(overlap, best[i][0])
                if overlap > best[i][0]:
                    best[i] = (overlap, index)
    return [index for _, index in best], tie


def close(a, b):
    return abs(a - b) <= TIE * max(abs(a), abs(b))


def center(box):
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


def distance(a, b):
    (ax, ay), (bx, by) = center(a), center(b)
    return (ax - bx) ** 2 + (ay - by) ** 2


def iou(a, b):
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    intersection = max(0.0, width) * max(0.0, height)
    return intersection / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - intersection)


def inside(anchor, box):
    x, y = center(anchor)
    return min(x - box[0], y - box[1], box[2] - x, box[3] - y)


def has_area(box):
    return all(map(math.isfinite, box)) and box[2] > box[0] and box[3] > box[1]
