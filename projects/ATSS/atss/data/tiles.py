"""Overlapping tiles that cover an image."""

from collections.abc import Iterator
from typing import NamedTuple


class Tile(NamedTuple):
    """A part of an image: x1 y1 x2 y2 in whole pixels, x2 and y2 exclusive."""

    x1: int
    y1: int
    x2: int
    y2: int


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
    for y in _first_pixels(height, size, step):
        for x in _first_pixels(width, size, step):
            yield Tile(x, y, min(x + size, width), min(y + size, height))


def _first_pixels(length, size, step):
    yield from range(0, length - size, step)
    yield max(0, length - size)
