"""Tiles cover every pixel, overlap by exactly what was asked for, and have equal sizes."""

import numpy as np
import pytest

from atss.data.tiles import tiles_of


@pytest.mark.parametrize("overlap", [0, 0.2, 0.5, 0.999])
@pytest.mark.parametrize("shape", [(100, 230), (64, 64), (65, 64), (10, 129), (128, 1), (1, 1)])
def test_every_pixel_is_in_a_tile_of_the_asked_for_size(shape, overlap):
    covered, sizes, tiles = np.zeros(shape, int), set(), list(tiles_of(*shape, 64, overlap))

    for tile in tiles:
        covered[tile.y1 : tile.y2, tile.x1 : tile.x2] += 1
        sizes.add((tile.y2 - tile.y1, tile.x2 - tile.x1))

    assert covered.min() >= 1
    assert sizes == {(min(64, shape[0]), min(64, shape[1]))}, "the last tile is shifted inside, not smaller"
    assert len(set(tiles)) == len(tiles)
    assert (len(tiles) == 1) == (max(shape) <= 64)


def test_tiles_share_the_overlap_and_the_last_one_more():
    tiles = list(tiles_of(640, 2048, 640, 0.2))

    assert [(tile.x1, tile.x2) for tile in tiles] == [(0, 640), (512, 1152), (1024, 1664), (1408, 2048)]
    assert len(list(tiles_of(640, 1152, 640, 0.2))) == 2, "no third one for no pixel"
    assert len(list(tiles_of(640, 1153, 640, 0.2))) == 3, "one for a single pixel"
