"""From predictions to the boxes of an image (the rule of the paper's code, as in FCOS)."""

from typing import NamedTuple

import torch
from torchvision.ops import batched_nms


class Detections(NamedTuple):
    """The D boxes found in an image, best first.

    boxes: (D, 4), x1 y1 x2 y2 in pixels, clipped to the image.
    scores: (D,), from 0 to 1.
    classes: (D,) int64.
    """

    boxes: torch.Tensor
    scores: torch.Tensor
    classes: torch.Tensor


class BoxSelector:
    """Keep the best boxes: by class score, by level, by non-maximum suppression, by image.

    A box takes part if its class score is above `score_threshold`; of these every level gives the `topk_per_level` with
    the highest class score x centerness. Their final score is the square root of that product. Without centerness the
    class score alone counts, and is final. Boxes without area in the image go. Non-maximum suppression works class by
    class.

    Args:
        score_threshold: from 0 to 1.
        topk_per_level: boxes per level.
        nms_threshold: IoU above which the lower of two boxes of a class goes.
        max_detections: boxes per image.
        topk_by_centerness: False to choose the boxes of a level by class score alone.
        score_root: False to leave the product as it is.
    """

    def __init__(
        self,
        score_threshold=0.05,
        topk_per_level=1000,
        nms_threshold=0.6,
        max_detections=100,
        topk_by_centerness=True,
        score_root=True,
    ):
        self.score_threshold = score_threshold
        self.topk_per_level = topk_per_level
        self.nms_threshold = nms_threshold
        self.max_detections = max_detections
        self.topk_by_centerness = topk_by_centerness
        self.score_root = score_root

    @torch.no_grad()
    def __call__(self, grid, predictions, box_coding, image_sizes):
        """Select the boxes of N images.

        Args:
            grid: the `AnchorGrid`, R anchors.
            predictions: `Predictions`: logits (N, R, C), deltas (N, R, 4), centerness (N, R) or None.
            box_coding: turns deltas and anchors into boxes.
            image_sizes: N pairs (height, width) in pixels, without padding.

        Returns:
            list of N `Detections`.
        """
        anchors = grid.boxes().split(grid.level_sizes)
        detections = []
        logits, deltas, centerness = predictions
        qualities = [None] * len(logits) if centerness is None else centerness
        for image_size, *image in zip(image_sizes, logits, deltas, qualities, strict=True):
            levels = zip(anchors, *(self._by_level(values, grid) for values in image), strict=True)
            found = [self._select_on_level(box_coding, *level) for level in levels]
            boxes, scores, classes = (torch.cat(values) for values in zip(*found, strict=True))
            boxes = clip(boxes, image_size, box_coding.pixel_extent)
            in_image = (boxes[:, 2:] > boxes[:, :2]).all(1)
            boxes, scores, classes = boxes[in_image], scores[in_image], classes[in_image]
            keep = batched_nms(boxes, scores, classes, self.nms_threshold)[: self.max_detections]
            detections.append(Detections(boxes[keep], scores[keep], classes[keep]))
        return detections

    def _by_level(self, values, grid):
        return [None] * len(grid.level_sizes) if values is None else values.split(grid.level_sizes)

    def _select_on_level(self, box_coding, anchors, logits, deltas, centerness):
        """A level of an image: anchors and deltas (r, 4), logits (r, C), centerness (r,) or None -> `Detections`."""
        scores = logits.sigmoid()
        anchor, label = (scores > self.score_threshold).nonzero(as_tuple=True)
        scores = of_class = scores[anchor, label]
        if centerness is not None:
            scores = of_class * centerness[anchor].sigmoid()
        best = (scores if self.topk_by_centerness else of_class).topk(min(len(scores), self.topk_per_level)).indices
        anchor, label, scores = anchor[best], label[best], scores[best]
        if centerness is not None and self.score_root:
            scores = scores.sqrt()
        return Detections(box_coding.decode(deltas[anchor], anchors[anchor]), scores, label)


def clip(boxes, image_size, pixel_extent=0):
    """The part of boxes (D, 4) that lies in an image of (height, width), at least `pixel_extent` wide and high."""
    return clip_to(boxes, boxes.new_tensor(image_size[::-1]), pixel_extent)


def clip_to(boxes, limits, pixel_extent=0):
    """`clip` for boxes (..., 4) whose images have width and height `limits`, which broadcasts to (..., 2)."""
    low = boxes[..., :2].clamp(min=0).minimum(limits - pixel_extent)
    high = boxes[..., 2:].clamp(min=pixel_extent).minimum(limits)
    return torch.cat([low, high], dim=-1)


def resize_boxes(boxes, old_size, new_size, pixel_extent=0):
    """Boxes (D, 4) of an image of `old_size` (height, width) in the same image of `new_size`.

    With a `pixel_extent` of 1 a box ends with its last pixel, which stays one pixel wide.
    """
    if old_size == new_size:
        return boxes
    # Divided last: what is in the image stays in it.
    low, high = (
        corner * boxes.new_tensor(new_size[::-1]) / boxes.new_tensor(old_size[::-1])
        for corner in (boxes[:, :2], boxes[:, 2:] - pixel_extent)
    )
    return torch.cat([low, high + pixel_extent], dim=1)
