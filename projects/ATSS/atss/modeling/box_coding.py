"""Box regression: boxes to deltas and back (section 3.1, "regression starting status").

Both codings have the methods `encode` and `decode` on tensors of any leading shape, boxes being x1 y1 x2 y2 in pixels;
`num_values`, how many numbers code a box; and `initial_bias`, the initial bias of the box prediction.

Boxes always end at x2 and y2. A `pixel_extent` of 1 means that the last pixel of the model's boxes is at x2 and y2 and
their width is x2 - x1 + 1, as in the paper's code: their centre is half a pixel less.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

# Limit of a predicted side in units of the anchor's, as in Detectron2: keeps exp() finite.
MAX_SIDE_RATIO = 1000 / 16
MAX_LOG_RATIO = math.log(MAX_SIDE_RATIO)


class BoxCoding:
    """Regression from a box, as in RetinaNet: offset of the centre and logarithm of the ratio of the sides.

    Args:
        weights: factors of the deltas dx, dy, dw and dh.
        pixel_extent: 0, or 1 for deltas of boxes whose last pixel is at x2 and y2.
    """

    num_values = 4
    initial_bias = 0.0

    def __init__(self, weights: Sequence[float] = (10.0, 10.0, 5.0, 5.0), pixel_extent: int = 0):
        self.weights = tuple(weights)
        self.pixel_extent = pixel_extent

    def encode(self, boxes: Tensor, anchors: Tensor) -> Tensor:
        """Deltas (..., 4) that turn `anchors` (..., 4) into `boxes` (..., 4)."""
        sides = boxes[..., 2:] - boxes[..., :2]
        anchor_sides = anchors[..., 2:] - anchors[..., :2]
        ends = boxes[..., :2] + boxes[..., 2:] - self.pixel_extent
        shift = (ends - (anchors[..., :2] + anchors[..., 2:])) / 2 / anchor_sides
        return torch.cat([shift, torch.log(sides / anchor_sides)], dim=-1) * boxes.new_tensor(self.weights)

    def decode(self, deltas: Tensor, anchors: Tensor) -> Tensor:
        """Boxes (..., 4) from `anchors` (..., 4) and `deltas` (..., 4)."""
        scaled = [delta / weight for delta, weight in zip(deltas.unbind(-1), self.weights, strict=True)]
        shifts, log_ratios = torch.stack(scaled, dim=-1).split(2, -1)
        sides = anchors[..., 2:] - anchors[..., :2]
        centers = (anchors[..., :2] + anchors[..., 2:] + self.pixel_extent) / 2 + shifts * sides
        half = sides * log_ratios.clamp(max=MAX_LOG_RATIO).exp() / 2
        return torch.cat([centers - half, centers + half], dim=-1)

    def decode_backward(self, deltas: Tensor, anchors: Tensor, gradient: Tensor) -> Tensor:
        """Gradient (..., 4) with respect to the deltas, from that of the decoded boxes."""
        sides, weights = anchors[..., 2:] - anchors[..., :2], deltas.new_tensor(self.weights)
        low, high = gradient.split(2, -1)
        logs = deltas[..., 2:] / weights[2:]
        half = sides * logs.clamp(max=MAX_LOG_RATIO).exp() / 2 * (logs <= MAX_LOG_RATIO)
        return torch.cat([(low + high) * sides, (high - low) * half], dim=-1) / weights


class PointCoding:
    """Regression from a point, as in FCOS: distances to the four sides, in strides.

    The point is the anchor's centre. The stride is the square root of the anchor's area, divided by `anchor_scale`.

    Args:
        anchor_scale: the anchor's side in strides.
        pixel_extent: 0, or 1 for distances to the last pixel on the right and below.
    """

    num_values = 4
    # Four strides: half of the usual anchor.
    initial_bias = 4.0

    def __init__(self, anchor_scale: float = 8.0, pixel_extent: int = 0):
        self.anchor_scale = anchor_scale
        self.pixel_extent = pixel_extent

    def encode(self, boxes: Tensor, anchors: Tensor) -> Tensor:
        """Distances (..., 4) in strides from the anchors' centres to the left, top, right and bottom of `boxes`.

        Negative if the point is outside the box.
        """
        point, stride = self._point_and_stride(anchors)
        return torch.cat([point - boxes[..., :2], boxes[..., 2:] - self.pixel_extent - point], dim=-1) / stride

    def decode(self, deltas: Tensor, anchors: Tensor) -> Tensor:
        """Boxes (..., 4) around the anchors' centres; negative distances count as 0."""
        point, stride = self._point_and_stride(anchors)
        distances = deltas.clamp(min=0) * stride
        return torch.cat([point - distances[..., :2], point + distances[..., 2:] + self.pixel_extent], dim=-1)

    def decode_backward(self, deltas: Tensor, anchors: Tensor, gradient: Tensor) -> Tensor:
        """Gradient (..., 4) with respect to the deltas, from that of the decoded boxes."""
        _, stride = self._point_and_stride(anchors)
        low, high = gradient.split(2, -1)
        return torch.cat([-low, high], dim=-1) * stride * (deltas >= 0)

    def _point_and_stride(self, anchors):
        area = (anchors[..., 2:] - anchors[..., :2]).prod(-1, keepdim=True)
        return (anchors[..., :2] + anchors[..., 2:]) / 2, area.sqrt() / self.anchor_scale
