"""Multi-scale testing: detect in several sizes of an image and their mirror images, and merge the boxes."""

from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from torchvision.ops import batched_nms, box_iou

from ..data import EvalResize
from ..modeling.inference import Detections, resize_boxes

MERGES = ("nms", "vote", "soft_vote")
# Pairs of boxes that are compared at once: a few hundred megabytes, however many boxes there are.
MAX_PAIRS = 1 << 22


class View(NamedTuple):
    """One size of the tested image, as it is or mirrored."""

    resize: EvalResize
    flip: bool  # left to right
    low: float  # keep only boxes with an area between low² and high², in pixels of the resized image
    high: float


class MultiScaleTest(nn.Module):
    """Run a detector on several views of each image and merge its boxes; called like the detector.

    Each view runs the detector's whole inference. Boxes are merged in the size of the first view; a single view gives
    exactly the detector's boxes.

    Args:
        model: an `ATSS`.
        views: list of `View`.
        merge: function of boxes (D, 4), scores (D,) and classes (D,) that returns `Detections`, best first.
        max_detections: merged boxes per image.
    """

    def __init__(self, model, views, merge, max_detections=100):
        super().__init__()
        self.model = model
        self.views = views
        self.merge = merge
        self.max_detections = max_detections

    @classmethod
    def of(cls, cfg, model):
        """Build it from TEST.AUG of a config, for a model that may be wrapped for several processes."""
        aug, views = cfg.TEST.AUG, []
        flips = (False, True) if aug.FLIP else (False,)
        ranges = aug.BOX_RANGES or [[0, np.inf]] * len(aug.MIN_SIZES)
        for size, (low, high) in zip(aug.MIN_SIZES, ranges, strict=True):
            max_size = cfg.INPUT.MAX_SIZE_TEST if size <= cfg.INPUT.MIN_SIZE_TEST else aug.MAX_SIZE
            resize = EvalResize(size, max_size, cfg.INPUT.RESIZE_LIKE)
            views += [View(resize, flip, low, high) for flip in flips]
        # Each view gives TEST.DETECTIONS_PER_IMAGE boxes; of the merged ones the paper's code keeps this many.
        return cls(getattr(model, "module", model), views, merge_of(cfg), cfg.MODEL.ATSS.TOPK_CANDIDATES_TEST)

    @torch.no_grad()
    def forward(self, batched_inputs):
        """As `ATSS.forward` in evaluation mode, for images that have not been resized."""
        return [{"instances": self.detect(x)} for x in batched_inputs]

    def detect(self, x):
        """Return the `Instances` of an image, given as its dict."""
        image = x["image"].permute(1, 2, 0).cpu().numpy()
        size = self.views[0].resize.new_size(*image.shape[:2])
        found = [self.detect_in_view(image, view, size) for view in self.views]
        merged = Detections(*(torch.cat(values) for values in zip(*found, strict=True)))
        if len(self.views) > 1:
            merged = Detections(*(values[: self.max_detections] for values in self.merge(*merged)))
        return self.to_instances(merged, size, (x.get("height", image.shape[0]), x.get("width", image.shape[1])))

    def to_instances(self, detections, image_size, size):
        """As `ATSS.to_instances`."""
        return self.model.to_instances(detections, image_size, size)

    def detect_in_view(self, image, view, size):
        """Return the `Detections` of an image (H, W, 3) in a view, mirrored back, resized to `size` (height, width)."""
        resized = view.resize.get_transform(image).apply_image(image)
        height, width = resized.shape[:2]
        if view.flip:
            resized = resized[:, ::-1]
        tensor = torch.as_tensor(np.ascontiguousarray(resized.transpose(2, 0, 1)))
        found = self.model([{"image": tensor, "height": height, "width": width}])[0]["instances"]
        areas = found.pred_boxes.area()
        found = found[(areas > view.low**2) & (areas < view.high**2)]
        boxes = found.pred_boxes.tensor
        if view.flip:
            x1, y1, x2, y2 = boxes.unbind(1)
            boxes = torch.stack([width - x2, y1, width - x1, y2], dim=1)
        boxes = resize_boxes(boxes, (height, width), size, self.model.head.box_coding.pixel_extent)
        return Detections(boxes, found.scores, found.pred_classes)


def merge_of(cfg):
    """The function of boxes (D, 4), scores (D,) and classes (D,) in TEST.AUG.MERGE; it returns `Detections`."""
    aug, atss = cfg.TEST.AUG, cfg.MODEL.ATSS
    return {
        "nms": partial(nms, threshold=atss.NMS_THRESH_TEST),
        "vote": partial(vote, threshold=aug.VOTE_THRESH),
        "soft_vote": partial(vote, threshold=aug.VOTE_THRESH, least_soft_score=atss.SCORE_THRESH_TEST),
    }[aug.MERGE]


def nms(boxes, scores, classes, threshold):
    """Non-maximum suppression class by class; returns `Detections`."""
    keep = batched_nms(boxes, scores, classes, threshold)
    return Detections(boxes[keep], scores[keep], classes[keep])


def vote(boxes, scores, classes, threshold, least_soft_score=None):
    """Box voting (Gidaris and Komodakis 2015): replace overlapping boxes by their mean, weighted by their scores.

    In each class, the best box forms a group with the boxes that overlap it by an IoU above `threshold`; then the best
    of the remaining boxes, and so on. Each group becomes one box with its best score.

    Args:
        boxes: (D, 4) float32, x1 y1 x2 y2 in pixels.
        scores: (D,) float32, from 0 to 1.
        classes: (D,) int64.
        threshold: IoU, from 0 to 1.
        least_soft_score: None, or the least score for the paper's soft voting, which also keeps the boxes of a group,
            with their score times 1 - IoU with the best box of the group, where that is at least this value.

    Returns:
        `Detections`, best first.
    """
    leaders = batched_nms(boxes, scores, classes, threshold)
    if not len(leaders):
        return Detections(boxes, scores, classes)
    group, overlap = [], []
    for part in torch.arange(len(boxes), device=boxes.device).split(max(1, MAX_PAIRS // len(leaders))):
        ious = box_iou(boxes[leaders], boxes[part]) * (classes[leaders, None] == classes[part])
        # Each box joins the best leader with enough overlap. batched_nms rounds coordinates: near the threshold, a box
        # may overlap no leader enough, then it joins the nearest.
        enough = ious > threshold
        group.append(torch.where(enough.any(0), enough.int().argmax(0), ious.argmax(0)))
        overlap.append(ious.gather(0, group[-1][None])[0])
    group, overlap = torch.cat(group), torch.cat(overlap)
    # A leader may overlap another, then it leads all the same.
    group[leaders] = torch.arange(len(leaders), device=group.device)
    overlap[leaders] = 1
    total = scores.new_zeros(len(leaders)).index_add_(0, group, scores)
    sums = torch.zeros_like(boxes[leaders]).index_add_(0, group, boxes * scores[:, None])
    alone = torch.bincount(group, minlength=len(leaders)) == 1
    merged = torch.where(alone[:, None], boxes[leaders], sums / total[:, None])
    found = [(merged, scores[leaders], classes[leaders])]
    if least_soft_score is not None:
        soft_scores = scores * (1 - overlap)
        keep = soft_scores >= least_soft_score
        found.append((boxes[keep], soft_scores[keep], classes[keep]))
    boxes, scores, classes = (torch.cat(values) for values in zip(*found, strict=True))
    order = scores.argsort(descending=True, stable=True)
    return Detections(boxes[order], scores[order], classes[order])
