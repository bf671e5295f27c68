"""Box voting (Gidaris and Komodakis 2015), with the soft variant of the paper's code."""

import torch
from torchvision.ops import batched_nms, box_iou

from ..modeling.inference import Detections


def vote(boxes, scores, classes, threshold, least_soft_score=None):
    """Replace overlapping boxes by their mean, weighted by their scores.

    In each class, the best box forms a group with the boxes that overlap it by an IoU above `threshold`; then the best
    of the remaining boxes, and so on. Each group becomes one box with its best score.

    Args:
        boxes: (D, 4) float32, x1 y1 x2 y2 in pixels.
        scores: (D,) float32, from 0 to 1.
        classes: (D,) int64.
        threshold: IoU, from 0 to 1.
        least_soft_score: None, or the least score for soft voting, which also keeps the boxes of a group, with their
            score times 1 - IoU with the best box of the group, where that is at least this value.

    Returns:
        `Detections`, best first.
    """
    leaders = batched_nms(boxes, scores, classes, threshold)
    if not len(leaders):
        return Detections(boxes, scores, classes)
    ious = box_iou(boxes[leaders], boxes) * (classes[leaders, None] == classes)
    # Each box joins the best leader with enough overlap. batched_nms rounds coordinates: near the threshold, a box may
    # overlap no leader enough, then it joins the nearest, and a leader may overlap another, then it leads all the same.
    enough = ious > threshold
    group = torch.where(enough.any(0), enough.int().argmax(0), ious.argmax(0))
    group[leaders] = torch.arange(len(leaders), device=group.device)
    total = scores.new_zeros(len(leaders)).index_add_(0, group, scores)
    sums = torch.zeros_like(boxes[leaders]).index_add_(0, group, boxes * scores[:, None])
    alone = torch.bincount(group, minlength=len(leaders)) == 1
    merged = torch.where(alone[:, None], boxes[leaders], sums / total[:, None])
    found = [(merged, scores[leaders], classes[leaders])]
    if least_soft_score is not None:
        soft_scores = scores * (1 - ious.gather(0, group[None])[0])
        keep = soft_scores >= least_soft_score
        found.append((boxes[keep], soft_scores[keep], classes[keep]))
    boxes, scores, classes = (torch.cat(values) for values in zip(*found, strict=True))
    order = scores.argsort(descending=True, stable=True)
    return Detections(boxes[order], scores[order], classes[order])
