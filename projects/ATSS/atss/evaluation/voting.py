"""Merging of boxes that several views of an image give, by voting (Gidaris and Komodakis 2015; the paper's code)."""

import torch
from torchvision.ops import batched_nms, box_iou

from ..modeling.inference import Detections


def vote(boxes, scores, classes, threshold, least_soft_score=None):
    """Replace boxes that overlap by their mean, weighted by their scores.

    Of all boxes of a class the best takes those with an IoU above `threshold` with it; of the rest the best takes its
    own, and so on. Each such group becomes one box with the best score.

    Args:
        boxes: (D, 4) float32, x1 y1 x2 y2 in pixels.
        scores: (D,) float32, from 0 to 1.
        classes: (D,) int64.
        threshold: of the IoU, from 0 to 1.
        least_soft_score: None, or for soft voting: the boxes of a group also stay as they are, with a score that their
            IoU with its best takes away from, times 1 - IoU, where that leaves at least so much.

    Returns:
        `Detections`, best first.
    """
    leaders = batched_nms(boxes, scores, classes, threshold)
    if not len(leaders):
        return Detections(boxes, scores, classes)
    ious = box_iou(boxes[leaders], boxes) * (classes[leaders, None] == classes)
    # All go to the best leader that overlaps them enough. Suppression rounds coordinates: close to the threshold a box
    # may have no leader by these IoUs, and gets the nearest, and a leader may have another, and stays its own.
    enough = ious > threshold
    group = torch.where(enough.any(0), enough.int().argmax(0), ious.argmax(0))
    group[leaders] = torch.arange(len(leaders), device=group.device)
    total = scores.new_zeros(len(leaders)).index_add_(0, group, scores)
    sums = torch.zeros_like(boxes[leaders]).index_add_(0, group, boxes * scores[:, None])
    alone = torch.bincount(group, minlength=len(leaders)) == 1
    merged = torch.where(alone[:, None], boxes[leaders], sums / total[:, None])
    found = [(merged, scores[leaders], classes[leaders])]
    if least_soft_score is not None:
        softened = scores * (1 - ious.gather(0, group[None])[0])
        stays = softened >= least_soft_score
        found.append((boxes[stays], softened[stays], classes[stays]))
    boxes, scores, classes = (torch.cat(values) for values in zip(*found, strict=True))
    order = scores.argsort(descending=True, stable=True)
    return Detections(boxes[order], scores[order], classes[order])
