"""Overlapping tiles that cover an image."""

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple


class Tile(NamedTuple):
    """A part of an image: x1 y1 x2 y2 in whole pixels, x2 and y2 exclusive.

    `core` is the part of the tile that is nearer to its centre than to that of the next tile: x1 y1 x2 y2, which lie in
    the middle of what two tiles share, and are infinite where the image ends.
    """

    x1: int
    y1: int
    x2: int
    y2: int
    core: tuple[float, float, float, float]


def tiles_of(height: int, width: int, size: int, overlap: float) -> Iterator[Tile]:
    """Yield the tiles of an image, row by row; a single one if the image is no larger than a tile.

    A tile and the next one share round(`overlap` x `size`) pixels, and at most `size` - 1. The last one ends where the
    image ends, and shares more. No tile is larger than the image, and all have the same size.

    Args:
        height, width: of the image, in pixels.
        size: height and width of a tile, in pixels.
        overlap: share of a tile, 0 or more and less than 1.
    """
    step = max(1, size - round(overlap * size))
    for y1, y2, top, bottom in _intervals(height, size, step):
        for x1, x2, left, right in _intervals(width, size, step):
            yield Tile(x1, y1, x2, y2, (left, top, right, bottom))


def _intervals(length, size, step):
    """Begin and end of the tiles along a side of `length` pixels, and those of their cores."""
    firsts = [*range(0, length - size, step), max(0, length - size)]
    middles = [(first + size + following) / 2 for first, following in pairwise(firsts)]
    for first, low, high in zip(firsts, [-math.inf, *middles], [*middles, math.inf], strict=True):
        yield first, min(first + size, length), low, high
