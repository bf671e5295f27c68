"""The assigners other than ATSS, one object and anchor at a time, as their sources define them.

Each function takes levels (lists of anchors), objects and the rule's parameters, and gives the matches of one image
and whether there was a tie on the way, as `naive_atss` does.
"""

from tests.modeling.assigners.naive import close, distance, has_area, inside, iou

BACKGROUND, IGNORED = -1, -2
MARGIN = 0.01


def close_to_margin(anchor, box):
    return abs(inside(anchor, box) - MARGIN) <= 1e-6 * (1 + max(map(abs, box)))


def overlap(anchor, box):
    """Lengths on both axes."""
    return [max(0.0, min(anchor[i + 2], box[i + 2]) - max(anchor[i], box[i])) for i in (0, 1)]


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
    return in_ranges(levels, objects, ranges, lambda box: [range(len(level)) for level in levels])


def naive_center_sampling(levels, objects, k, num_per_cell, ranges):
    """The same among the k cells of every level that are nearest to the object's centre."""
    tie = False

    def nearest(box):
        nonlocal tie
        chosen = []
        for level in levels:
            order = sorted(range(len(level)), key=lambda i, level=level: (distance(level[i], box), i))
            border = [distance(level[i], box) for i in order[k * num_per_cell - 1 : k * num_per_cell + 1]]
            tie |= len(border) == 2 and close(*border)
            chosen.append(order[: k * num_per_cell])
        return chosen

    matches, on_the_way = in_ranges(levels, objects, ranges, nearest)
    return matches, tie or on_the_way


def in_ranges(levels, objects, ranges, candidates):
    matches, smallest, tie = [[BACKGROUND] * len(level) for level in levels], {}, False
    for index, box in enumerate(objects):
        if not has_area(box):
            continue
        area = (box[2] - box[0]) * (box[3] - box[1])
        for number, chosen in enumerate(candidates(box)):
            low, high = ranges[number]
            for i in chosen:
                anchor = levels[number][i]
                x, y = (anchor[0] + anchor[2]) / 2, (anchor[1] + anchor[3]) / 2
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
    objects_with_area = [box for box in objects if has_area(box)]
    farthest = max((distance(a, box) ** 0.5 for a in anchors for box in objects_with_area), default=1.0)
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
