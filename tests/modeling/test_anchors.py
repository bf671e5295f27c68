import pytest
import torch
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator

from atss.modeling.anchors import AnchorGrid, make_cell_anchors

STRIDES = [8, 16, 32]
SHAPES = [(5, 7), (3, 4), (1, 2)]


@pytest.mark.parametrize("offset", [0.0, 0.5])
@pytest.mark.parametrize("ratios, scales_per_octave", [([1.0], 1), ([0.5, 1.0, 2.0], 1), ([0.5, 1.0, 2.0], 3)])
def test_boxes_are_those_of_detectron2s_generator_in_its_order(offset, ratios, scales_per_octave):
    sizes = [[8 * s * 2 ** (i / scales_per_octave) for i in range(scales_per_octave)] for s in STRIDES]
    generator = DefaultAnchorGenerator(sizes=sizes, aspect_ratios=[ratios], strides=STRIDES, offset=offset)
    expected = torch.cat([b.tensor for b in generator([torch.zeros(1, 1, h, w) for h, w in SHAPES])])

    cell_anchors = make_cell_anchors(STRIDES, 8.0, ratios, scales_per_octave)
    grid = AnchorGrid(SHAPES, STRIDES, cell_anchors, offset)

    torch.testing.assert_close(grid.boxes(), expected)
    assert len(grid) == len(expected) == sum(grid.level_sizes)


def test_one_square_anchor_of_eight_strides_centred_on_the_cell():
    boxes = AnchorGrid([(2, 3)], [16], make_cell_anchors([16])).boxes()

    assert boxes.shape == (6, 4)
    assert boxes[0].tolist() == [8 - 64, 8 - 64, 8 + 64, 8 + 64]
    assert boxes[4].tolist() == [24 - 64, 24 - 64, 24 + 64, 24 + 64], "row 1, column 1"


@pytest.mark.parametrize(
    "shapes, strides, anchors, what",
    [
        ([(2, 2)], [8, 16], make_cell_anchors([8]), "number of levels"),
        ([], [], [], "number of levels"),
        ([(0, 2)], [8], make_cell_anchors([8]), "0 x 2"),
        ([(2, 2)], [8], [torch.zeros(4)], r"\(A, 4\)"),
    ],
)
def test_grids_that_make_no_sense_are_refused(shapes, strides, anchors, what):
    with pytest.raises(ValueError, match=what):
        AnchorGrid(shapes, strides, anchors)
