"""Boxes of objects that are given by their segmentation alone: polygons, or run lengths of a mask (RLE).

The masks themselves, which may be of any size, are not made. The decoder of pycocotools reads beyond the end of
malformed texts.
"""

# Coordinates of this size and more are not pixels.
LARGEST = 1e9


def box_of(segmentation, size):
    """Box [x, y, width, height] in pixels around a segmentation in COCO's format.

    Args:
        segmentation: of any type; valid are polygons, lists of coordinates x1, y1, x2, y2, ... or of points, and dicts
            with the `size` of a mask and its `counts`, a list of integers or a text.
        size: (height, width) of the image.

    Raises ValueError, with what it must be, if the segmentation is malformed.
    """
    return box_of_mask(segmentation, size) if type(segmentation) is dict else box_of_polygons(segmentation)


def box_of_polygons(polygons):
    """Box around polygons: a list of coordinates or of points [x, y], or a list of such lists; see `box_of`."""
    lists, numbers = [polygons], []
    while lists:
        inner = lists.pop()
        if type(inner) is not list:
            raise ValueError("be polygons or a mask")
        if inner and all(type(x) in (int, float) for x in inner):
            if len(inner) % 2 or not all(abs(x) < LARGEST for x in inner):
                raise ValueError("have x and y of each point, in pixels")
            numbers += inner
        else:
            lists += inner
    if len(numbers) < 6:
        raise ValueError("have polygons of at least three points")
    xs, ys = numbers[::2], numbers[1::2]
    return [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]


def box_of_mask(mask, size):
    """Box around the pixels of a mask: runs down its columns, background first; see `box_of`."""
    height, width = size
    if mask.get("size") != [height, width]:
        raise ValueError(f"be a mask of the image's size, [{height}, {width}]")
    runs = mask.get("counts")
    runs = decoded(runs, height * width) if type(runs) is str else runs
    if type(runs) is not list or not all(type(run) is int and run >= 0 for run in runs) or sum(runs) != height * width:
        raise ValueError("have runs that make up the mask")
    # Of the columns and rows with an object, the first ones and those after the last.
    left, top, right, bottom, start = width, height, 0, 0, 0
    for number, run in enumerate(runs):
        if number % 2 and run:
            (first, above), (last, below) = divmod(start, height), divmod(start + run - 1, height)
            above, below = (above, below) if first == last else (0, height - 1)
            left, top = min(left, first), min(top, above)
            right, bottom = max(right, last + 1), max(bottom, below + 1)
        start += run
    return [left, top, right - left, bottom - top] if right else [0, 0, 0, 0]


def decoded(text, most):
    """Runs of a compressed mask, pycocotools' text: little-endian groups of 5 bits, differences from the fourth run on.

    Raises ValueError if the text is malformed, or a run is not from 0 to `most`.
    """
    runs, value, shift = [], 0, 0
    for code in text.encode("latin-1", "replace"):
        bits = code - 48
        if not 0 <= bits < 64 or shift > 60:
            raise ValueError("have counts in COCO's compressed form")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:  # more groups follow
            continue
        value += (runs[-2] if len(runs) > 2 else 0) - (1 << shift if bits & 16 else 0)
        if not 0 <= value <= most:
            raise ValueError("have runs that make up the mask")
        runs.append(value)
        value = shift = 0
    if shift:
        raise ValueError("have counts in COCO's compressed form")
    return runs
