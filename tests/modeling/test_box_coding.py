import math

import pytest
import torch
from detectron2.modeling.box_regression import Box2BoxTransform

from atss.modeling.box_coding import MAX_SIDE_RATIO, BoxCoding, PointCoding

ANCHORS = torch.tensor([[-24.0, -24, 40, 40], [0, 0, 128, 128], [100, 60, 612, 572]])


def boxes_around(anchors, generator):
    """Boxes that contain the anchors' centres."""
    center = (anchors[:, :2] + anchors[:, 2:]) / 2
    before, behind = (torch.rand(len(anchors), 2, generator=generator) * 90 + 1 for _ in range(2))
    return torch.cat([center - before, center + behind], dim=1)


@pytest.mark.parametrize(
    "coding", [BoxCoding(), BoxCoding((1, 1, 1, 1)), BoxCoding(pixel_extent=1), PointCoding(), PointCoding(4.0, 1)]
)
def test_round_trip(coding):
    anchors = ANCHORS.repeat(50, 1)
    boxes = boxes_around(anchors, torch.Generator().manual_seed(0))

    torch.testing.assert_close(coding.decode(coding.encode(boxes, anchors), anchors), boxes, rtol=1e-4, atol=1e-3)


def test_from_a_box_is_detectron2s_transform_with_the_papers_weights():
    anchors = ANCHORS.repeat(50, 1)
    boxes = boxes_around(anchors, torch.Generator().manual_seed(1))
    reference = Box2BoxTransform(weights=(10.0, 10.0, 5.0, 5.0))

    deltas = BoxCoding().encode(boxes, anchors)

    torch.testing.assert_close(deltas, reference.get_deltas(anchors, boxes), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        BoxCoding().decode(deltas, anchors), reference.apply_deltas(deltas, anchors), rtol=1e-4, atol=1e-3
    )


def test_from_a_point_is_the_four_distances_in_strides():
    anchor = torch.tensor([[32.0 - 64, 48 - 64, 32 + 64, 48 + 64]])  # 8 strides of 16 around (32, 48)
    box = torch.tensor([[0.0, 40, 80, 64]])

    assert PointCoding().encode(box, anchor).tolist() == [[2.0, 0.5, 3.0, 1.0]]


def test_distances_below_zero_count_as_zero():
    anchor = torch.tensor([[-32.0, -32, 32, 32]])

    decoded = PointCoding().decode(torch.tensor([[-5.0, 1, 1, -0.1]]), anchor)

    assert decoded.tolist() == [[0.0, -8.0, 8.0, 0.0]]


def test_sides_stay_finite_for_any_prediction():
    decoded = BoxCoding().decode(torch.full((1, 4), 1e4), ANCHORS[:1])

    assert decoded.isfinite().all()
    assert math.isclose((decoded[0, 2] - decoded[0, 0]).item(), 64 * MAX_SIDE_RATIO, rel_tol=1e-3)


def test_leading_shape_is_free():
    deltas = torch.zeros(2, 3, 4)

    for coding in (BoxCoding(), PointCoding()):
        assert coding.decode(deltas, ANCHORS).shape == (2, 3, 4)
        assert coding.encode(ANCHORS.expand(2, 3, 4), ANCHORS).shape == (2, 3, 4)


def test_of_boxes_that_end_with_their_last_pixel():
    """The paper's code, in whose formulas x2 is a pixel and a box x2 - x1 + 1 wide."""
    anchor = torch.tensor([[-24.0, -24, 40, 40]])  # there: pixels from -23.5 to 39.5, 64 wide
    deltas = torch.tensor([[2.0, -1, 0.7, -0.3]])
    (x1, y1, x2, y2) = (-23.5, -23.5, 39.5, 39.5)
    x, y = (x1 + x2) / 2 + 0.2 * (x2 - x1 + 1), (y1 + y2) / 2 - 0.1 * (y2 - y1 + 1)
    width, height = math.exp(0.7 / 5) * 64, math.exp(-0.3 / 5) * 64
    first, last = (x - (width - 1) / 2, y - (height - 1) / 2), (x + (width - 1) / 2, y + (height - 1) / 2)

    decoded = BoxCoding(pixel_extent=1).decode(deltas, anchor)

    assert decoded[0].tolist() == pytest.approx([*first, last[0] + 1, last[1] + 1])
    assert decoded[0].tolist() == pytest.approx((BoxCoding().decode(deltas, anchor)[0] + 0.5).tolist())
    distances = torch.tensor([[2.0, 0.5, 3.0, 1.0]])
    points = PointCoding(pixel_extent=1).decode(distances, anchor)
    assert points[0].tolist() == [8 - 16, 8 - 4, 8 + 24 + 1, 8 + 8 + 1]
