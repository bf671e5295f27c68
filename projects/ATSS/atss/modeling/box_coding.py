"""What the four numbers of the box prediction mean: box <-> deltas (section 3.1, "regression starting status").

Both codings have the same two methods on tensors of any leading shape, boxes being x1 y1 x2 y2 in pixels, and
`initial_bias`, from which the bias of the box prediction starts.

Boxes end at x2 and y2, whoever trained the model. A `pixel_extent` of 1 says that the deltas are of boxes whose last
pixel is at x2 and y2, of width x2 - x1 + 1, as in the paper's code: there the centre of a box is half a pixel less.
"""

import math

import torch

# A predicted side is at most this many times the anchor's: keeps exp() finite.
MAX_SIDE_RATIO = 1000 / 16


class BoxCoding:
    """Regression from a box, as in RetinaNet: offset of the centre and logarithm of the sides' ratios.

    Args:
        weights: factors of dx, dy, dw and dh.
        pixel_extent: 0, or 1 for deltas of boxes whose last pixel is at x2 and y2.
    """

    initial_bias = 0.0

    def __init__(self, weights=(10.0, 10.0, 5.0, 5.0), pixel_extent=0):
        self.weights = tuple(weights)
        self.pixel_extent = pixel_extent

    def encode(self, boxes, anchors):
        """Deltas (..., 4) that turn `anchors` (..., 4) into `boxes` (..., 4)."""
        sides, anchor_sides = boxes[..., 2:] - boxes[..., :2], anchors[..., 2:] - anchors[..., :2]
        ends = boxes[..., :2] + boxes[..., 2:] - self.pixel_extent
        shift = (ends - (anchors[..., :2] + anchors[..., 2:])) / 2 / anchor_sides
        return torch.cat([shift, torch.log(sides / anchor_sides)], dim=-1) * boxes.new_tensor(self.weights)

    def decode(self, deltas, anchors):
        """Boxes (..., 4) that `deltas` (..., 4) make of `anchors` (..., 4)."""
        dx, dy, dw, dh = (delta / weight for delta, weight in zip(deltas.unbind(-1), self.weights, strict=True))
        x1, y1, x2, y2 = anchors.unbind(-1)
        width, height = x2 - x1, y2 - y1
        limit = math.log(MAX_SIDE_RATIO)
        x, half_width = (x1 + x2 + self.pixel_extent) / 2 + dx * width, width * dw.clamp(max=limit).exp() / 2
        y, half_height = (y1 + y2 + self.pixel_extent) / 2 + dy * height, height * dh.clamp(max=limit).exp() / 2
        return torch.stack([x - half_width, y - half_height, x + half_width, y + half_height], dim=-1)


class PointCoding:
    """Regression from a point, as in FCOS: distances to the four sides, in strides.

    The point is the anchor's centre. The stride is read from the anchor, whose sides are on (geometric)
    average `anchor_scale` strides long.

    Args:
        anchor_scale: the anchor's side in strides.
        pixel_extent: 0, or 1 for distances to the last pixel on the right and below.
    """

    # Four strides, half of the usual anchor: predictions start where boxes are.
    initial_bias = 4.0

    def __init__(self, anchor_scale=8.0, pixel_extent=0):
        self.anchor_scale = anchor_scale
        self.pixel_extent = pixel_extent

    def encode(self, boxes, anchors):
        """Distances (..., 4), left top right bottom, from the anchors' centres to the sides of `boxes`, in strides.

        Negative where the point lies outside the box.
        """
        point, stride = self._point_and_stride(anchors)
        return torch.cat([point - boxes[..., :2], boxes[..., 2:] - self.pixel_extent - point], dim=-1) / stride

    def decode(self, deltas, anchors):
        """Boxes (..., 4) around the anchors' centres; a negative distance counts as 0."""
        point, stride = self._point_and_stride(anchors)
        distances = deltas.clamp(min=0) * stride
        return torch.cat([point - distances[..., :2], point + distances[..., 2:] + self.pixel_extent], dim=-1)

    def _point_and_stride(self, anchors):
        area = (anchors[..., 2:] - anchors[..., :2]).prod(-1, keepdim=True)
        return (anchors[..., :2] + anchors[..., 2:]) / 2, area.sqrt() / self.anchor_scale
