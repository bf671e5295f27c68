"""Post-processing: from the predictions of all anchors to the detections of an image, as in FCOS."""

from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.ops import batched_nms

from .anchors import AnchorGrid


class Detections(NamedTuple):
    """The D detections of an image, sorted by score.

    boxes: (D, 4), x1 y1 x2 y2 in pixels, clipped to the image.
    scores: (D,), from 0 to 1.
    classes: (D,) int64.
    """

    boxes: Tensor
    scores: Tensor
    classes: Tensor


class BoxSelector:
    """Select detections: threshold, top k per level, non-maximum suppression per class, top k per image.

    Boxes whose class score exceeds `score_threshold` are candidates; each level keeps the `topk_per_level` with the
    highest class score x centerness. The final score is the square root of this product. A head without centerness
    uses the class score instead of the product and its root. Boxes without area in the image are dropped.

    Args:
        score_threshold: minimum class score, from 0 to 1.
        topk_per_level: maximum number of boxes per level.
        nms_threshold: IoU above which the box with the lower score is suppressed.
        max_detections: maximum number of boxes per image.
        topk_by_centerness: False to rank the boxes of a level by class score alone.
        score_root: False to use the product without the square root.
    """

    def __init__(
        self,
        score_threshold: float = 0.05,
        topk_per_level: int = 1000,
        nms_threshold: float = 0.6,
        max_detections: int = 100,
        topk_by_centerness: bool = True,
        score_root: bool = True,
    ):
        self.score_threshold = score_threshold
        self.topk_per_level = topk_per_level
        self.nms_threshold = nms_threshold
        self.max_detections = max_detections
        self.topk_by_centerness = topk_by_centerness
        self.score_root = score_root

    @torch.no_grad()
    def __call__(self, grid: AnchorGrid, predictions, box_coding, image_sizes) -> list[Detections]:
        """Select the detections of N images.

        Args:
            grid: the R anchors.
            predictions: `Predictions`: logits (N, R, C), deltas (N, R, 4), centerness (N, R) or None.
            box_coding: decodes the deltas.
            image_sizes: N pairs (height, width) in pixels, without padding.
        """
        anchors = grid.boxes().split(grid.level_sizes)
        logits, deltas, centerness = predictions
        detections = []
        for i, image_size in enumerate(image_sizes):
            levels = zip(
                anchors,
                logits[i].split(grid.level_sizes),
                deltas[i].split(grid.level_sizes),
                [None] * len(anchors) if centerness is None else centerness[i].split(grid.level_sizes),
                strict=True,
            )
            selected = [self._select_on_level(box_coding, *level) for level in levels]
            boxes, scores, classes = map(torch.cat, zip(*selected, strict=True))
            boxes = clip(boxes, boxes.new_tensor(image_size[::-1]), box_coding.pixel_extent)
            in_image = (boxes[:, 2:] > boxes[:, :2]).all(1)
            boxes, scores, classes = boxes[in_image], scores[in_image], classes[in_image]
            keep = batched_nms(boxes, scores, classes, self.nms_threshold)[: self.max_detections]
            detections.append(Detections(boxes[keep], scores[keep], classes[keep]))
        return detections

    def _select_on_level(self, box_coding, anchors, logits, deltas, centerness):
        """Top k of a level: anchors and deltas (r, 4), logits (r, C), centerness (r,) or None -> `Detections`."""
        class_scores = logits.sigmoid()
        anchor, label = (class_scores > self.score_threshold).nonzero(as_tuple=True)
        class_scores = class_scores[anchor, label]
        scores = class_scores if centerness is None else class_scores * centerness[anchor].sigmoid()
        ranking = scores if self.topk_by_centerness else class_scores
        best = ranking.topk(min(len(scores), self.topk_per_level)).indices
        anchor, label, scores = anchor[best], label[best], scores[best]
        if centerness is not None and self.score_root:
            scores = scores.sqrt()
        return Detections(box_coding.decode(deltas[anchor], anchors[anchor]), scores, label)


def clip(boxes: Tensor, limits: Tensor, pixel_extent: int = 0) -> Tensor:
    """Clip boxes (..., 4) to images of width and height `limits` (..., 2), to sides of at least `pixel_extent`."""
    low = boxes[..., :2].clamp(min=0).minimum(limits - pixel_extent)
    high = boxes[..., 2:].clamp(min=pixel_extent).minimum(limits)
    return torch.cat([low, high], dim=-1)


def resize_boxes(boxes: Tensor, old_size: tuple[int, int], new_size: tuple[int, int], pixel_extent: int = 0) -> Tensor:
    """Scale boxes (D, 4) from an image of `old_size` (height, width) to `new_size`.

    With a `pixel_extent` of 1 the last pixel of a box keeps its size.
    """
    if old_size == new_size:
        return boxes
    old, new = boxes.new_tensor(old_size[::-1]), boxes.new_tensor(new_size[::-1])
    # Multiply first: rounding must not move a box out of the image.
    low = boxes[:, :2] * new / old
    high = (boxes[:, 2:] - pixel_extent) * new / old + pixel_extent
    return torch.cat([low, high], dim=1)
