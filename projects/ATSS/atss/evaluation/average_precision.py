"""Precision and recall of boxes as COCO counts them, all images of a class at once.

pycocotools goes through images, area ranges, IoU thresholds, detections and objects in Python. Here only the turns of
an image's detections are a loop: all images' best detections choose their objects at once, for all thresholds and
ranges, then all second ones. The figures are pycocotools' to the last bit, ties included.

Letters in shapes: D detections, G objects, N pairs of both, and of pycocotools' parameters T IoU thresholds, R recall
thresholds, K classes, A area ranges, M limits on the detections of an image.
"""

import itertools

import numpy as np

OBJECT = np.dtype([("category", "i8"), ("image", "i8"), ("box", "f8", 4), ("area", "f8"), ("crowd", "?")])
DETECTION = np.dtype([("category", "i8"), ("image", "i8"), ("box", "f8", 4), ("area", "f8"), ("score", "f8")])

# Pairs of a detection and an object whose IoU is computed at a time: some tens of megabytes.
PAIRS = 1 << 18


def precision_and_recall(annotations, results, category_ids, params):
    """Compare detections with objects, class by class.

    Args:
        annotations: list of objects in COCO's format, boxes as [x, y, width, height] in pixels. Where `area` is missing
            it is that of the box, where `iscrowd` is missing the object is none; `id` is not read.
        results: list of detections in COCO's format of results.
        category_ids: list of the K classes; boxes of others are left out.
        params: `pycocotools.cocoeval.Params` for boxes, with `maxDets` from small to large.

    Returns:
        precision (T, R, K, A, M), the best at a recall or any higher one, 0 where that recall is not reached; recall
        (T, K, A, M), the highest. Both -1 where no object counts.
    """
    objects, detections = read_objects(annotations), read_detections(results)
    num_t, num_r, num_a, num_m = (len(x) for x in (params.iouThrs, params.recThrs, params.areaRng, params.maxDets))
    precision = np.full((num_t, num_r, len(category_ids), num_a, num_m), -1.0)
    recall = np.full((num_t, len(category_ids), num_a, num_m), -1.0)
    for k, category_id in enumerate(category_ids):
        rows = [slice(*np.searchsorted(x["category"], [category_id, category_id + 1])) for x in (objects, detections)]
        fill_class(precision[:, :, k], recall[:, k], objects[rows[0]], detections[rows[1]], params)
    return precision, recall


def read_objects(annotations):
    """List of annotations -> OBJECT (G,), in order of class and image, otherwise as given."""
    rows = read_boxes(annotations, OBJECT)
    rows["area"] = [a.get("area", a["bbox"][2] * a["bbox"][3]) for a in annotations]
    rows["crowd"] = [a.get("iscrowd", 0) for a in annotations]
    return rows[np.lexsort((rows["image"], rows["category"]))]


def read_detections(results):
    """List of results -> DETECTION (D,), in order of class, image and falling score, otherwise as given."""
    rows = read_boxes(results, DETECTION)
    rows["area"] = rows["box"][:, 2] * rows["box"][:, 3]
    rows["score"] = [r["score"] for r in results]
    return rows[np.lexsort((-rows["score"], rows["image"], rows["category"]))]


def read_boxes(entries, dtype):
    rows = np.empty(len(entries), dtype)
    rows["category"] = [e["category_id"] for e in entries]
    rows["image"] = [e["image_id"] for e in entries]
    rows["box"] = np.array([e["bbox"] for e in entries], dtype="f8").reshape(-1, 4)
    return rows


def fill_class(precision, recall, objects, detections, params):
    """Precision (T, R, A, M) and recall (T, A, M) of one class, written into the two arrays."""
    rank = place_in_image(detections["image"])
    seen = rank < params.maxDets[-1]
    detections, rank = detections[seen], rank[seen]
    counted = in_ranges(objects["area"], params.areaRng) & ~objects["crowd"][:, None]
    right, ignored, _ = match(objects, detections, counted, params)

    totals = counted.sum(axis=0)
    by_score = np.argsort(-detections["score"], kind="stable")
    for m, limit in enumerate(params.maxDets):
        order = by_score[rank[by_score] < limit]
        is_right, place = right[order], np.cumsum(~ignored[order], axis=0)
        for t, a in itertools.product(range(len(params.iouThrs)), np.flatnonzero(totals)):
            places = place[is_right[:, t, a], t, a]
            precision[t, :, a, m] = sample_precision(places, totals[a], params.recThrs)
            recall[t, a, m] = len(places) / totals[a]


def sample_precision(places, total, recall_thresholds):
    """The best precision at each recall or a higher one.

    Args:
        places: (P,), for every detection that is right its place among those that count, from 1.
        total: number of objects.
        recall_thresholds: (R,).

    Returns:
        (R,), 0 where the recall is not reached.
    """
    num_right = np.arange(1, len(places) + 1)
    # pycocotools keeps 0 / 0 away with np.spacing(1); here nothing is 0, but the last bit is to be the same.
    precision = num_right / (places + np.spacing(1))
    best = np.maximum.accumulate(precision[::-1])[::-1]
    return np.append(best, 0)[np.searchsorted(num_right / total, recall_thresholds)]


def match(objects, detections, counted, params):
    """Give detections, the better score first, the free object that overlaps them most.

    Objects that do not count in an area range, crowds among them, are given only where none that counts will do; a
    crowd is always free. Of equal IoUs the later object wins.

    Args:
        objects: OBJECT (G,), an image's together.
        detections: DETECTION (D,), an image's together, with falling scores.
        counted: (G, A), whether an object counts.

    Returns:
        right, ignored: (D, T, A) bool. A detection is ignored that has an object that does not count, or none and an
        area out of the range; one that is neither is wrong.
        given: (D, T, A) int64, the object of a detection, -1 for none.
    """
    thresholds = np.minimum(params.iouThrs, 1 - 1e-10)
    outside = ~in_ranges(detections["area"], params.areaRng)
    ignored = np.repeat(outside[:, None], len(thresholds), axis=1)
    right = np.zeros_like(ignored)
    given = np.full(ignored.shape, -1)
    taken = np.zeros((len(objects), *ignored.shape[1:]), bool)

    of_detection, of_object, iou = overlaps(objects, detections, thresholds.min())
    overlapping, row = np.unique(of_detection, return_inverse=True)
    turn = place_in_image(detections["image"][overlapping])[row]
    order = np.lexsort((of_object, iou, of_detection, turn))
    turns = np.split(order, np.flatnonzero(np.diff(turn[order])) + 1) if len(order) else []
    for pairs in turns:
        theirs, wanted = of_detection[pairs], of_object[pairs]
        reached = iou[pairs, None] >= thresholds
        free = ~taken[wanted] | objects["crowd"][wanted, None, None]
        # From 1: of a detection's pairs, later in `order` is better, and those of objects that count are better still.
        value = 1 + np.arange(len(pairs))[:, None] + len(pairs) * counted[wanted]
        value = np.where(free & reached[:, :, None], value[:, None], 0)
        firsts = np.flatnonzero(np.diff(theirs, prepend=-1))
        best = np.maximum.reduceat(value, firsts)
        i, t, a = np.nonzero(best)
        chosen = wanted[(best[i, t, a] - 1) % len(pairs)]
        rows = theirs[firsts][i]
        taken[chosen, t, a] = True
        given[rows, t, a] = chosen
        right[rows, t, a] = counted[chosen, a]
        ignored[rows, t, a] = ~counted[chosen, a]
    return right, ignored, given


def overlaps(objects, detections, least):
    """Pairs of an image's detections and objects with an IoU of at least `least`.

    With a crowd, what the two share is compared with the detection's area alone.

    Returns:
        detection (N,), rising; object (N,); IoU (N,).
    """
    start, end = (np.searchsorted(objects["image"], detections["image"], side) for side in ("left", "right"))
    until = np.cumsum(end - start)
    cuts = np.searchsorted(until, np.arange(PAIRS, until[-1] if len(until) else 0, PAIRS))
    found = []
    for block in np.split(np.arange(len(detections)), cuts):
        count = (end - start)[block]
        d = np.repeat(block, count)
        g = np.arange(len(d)) + np.repeat(start[block] - (np.cumsum(count) - count), count)
        (x1, y1, w1, h1), (x2, y2, w2, h2) = detections["box"][d].T, objects["box"][g].T
        width = np.minimum(x1 + w1, x2 + w2) - np.maximum(x1, x2)
        height = np.minimum(y1 + h1, y2 + h2) - np.maximum(y1, y2)
        meet = (width > 0) & (height > 0)
        d, g, shared = d[meet], g[meet], (width * height)[meet]
        area1, area2 = (w1 * h1)[meet], (w2 * h2)[meet]
        iou = shared / np.where(objects["crowd"][g], area1, area1 + area2 - shared)
        near = iou >= least
        found.append((d[near], g[near], iou[near]))
    return tuple(map(np.concatenate, zip(*found, strict=True)))


def place_in_image(images):
    """Ids of images (N,), rising -> place of every entry among those of its image (N,), from 0."""
    return np.arange(len(images)) - np.searchsorted(images, images)


def in_ranges(areas, ranges):
    """Areas (N,), A ranges -> (N, A), whether they lie in them, bounds included."""
    low, high = np.array(ranges).T
    return (areas[:, None] >= low) & (areas[:, None] <= high)
