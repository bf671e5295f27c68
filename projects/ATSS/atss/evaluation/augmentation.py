"""Multi-scale testing: a detector looks at an image at several sizes and mirrored (the paper's last table)."""

from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from detectron2.structures import Boxes
from torch import nn
from torchvision.ops import batched_nms

from ..data import EvalResize
from ..modeling.inference import Detections, resize_boxes
from .voting import vote

MERGES = ("nms", "vote", "soft_vote")


class View(NamedTuple):
    """How an image is looked at.

    resize: `EvalResize`.
    flip: whether it is mirrored, left to right.
    low, high: only boxes whose area lies between the squares of these count, in pixels of the resized image.
    """

    resize: EvalResize
    flip: bool
    low: float
    high: float


class MultiScaleTest(nn.Module):
    """A detector that merges what another finds in several views of an image; called like it.

    Every view is all of the plain model's inference, one at a time. Boxes are merged in the size of the first view; one
    view alone gives exactly what the plain model gives for it.

    Args:
        model: an `ATSS`.
        views: list of `View`.
        merge: function of boxes (D, 4), scores (D,) and classes (D,) -> `Detections`, best first.
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
        """From a config (TEST.AUG) around a model, which may be wrapped for several processes."""
        aug, views = cfg.TEST.AUG, []
        ranges = aug.BOX_RANGES or [[0, np.inf]] * len(aug.MIN_SIZES)
        for size, (low, high) in zip(aug.MIN_SIZES, ranges, strict=True):
            max_size = cfg.INPUT.MAX_SIZE_TEST if size <= cfg.INPUT.MIN_SIZE_TEST else aug.MAX_SIZE
            resize = EvalResize(size, max_size, cfg.INPUT.RESIZE_LIKE)
            views += [View(resize, flip, low, high) for flip in ((False, True) if aug.FLIP else (False,))]
        atss = cfg.MODEL.ATSS
        merge = {
            "nms": partial(suppress, threshold=atss.NMS_THRESH_TEST),
            "vote": partial(vote, threshold=aug.VOTE_THRESH),
            "soft_vote": partial(vote, threshold=aug.VOTE_THRESH, least_soft_score=atss.SCORE_THRESH_TEST),
        }[aug.MERGE]
        # A view has TEST.DETECTIONS_PER_IMAGE boxes; of all views the paper's code keeps as many as of a level before.
        return cls(getattr(model, "module", model), views, merge, atss.TOPK_CANDIDATES_TEST)

    @torch.no_grad()
    def forward(self, batched_inputs):
        """As `ATSS.forward` at inference, of images that have not been resized."""
        return [{"instances": self.detect(x)} for x in batched_inputs]

    def detect(self, x):
        """The `Instances` of an image, from its dict."""
        image = x["image"].permute(1, 2, 0).cpu().numpy()
        found = [self.look(image, view) for view in self.views]
        frame, extent = found[0].image_size, self.model.head.box_coding.pixel_extent
        boxes = torch.cat([resize_boxes(f.pred_boxes.tensor, f.image_size, frame, extent) for f in found])
        scores, classes = torch.cat([f.scores for f in found]), torch.cat([f.pred_classes for f in found])
        merged = Detections(boxes, scores, classes)
        if len(self.views) > 1:
            merged = Detections(*(values[: self.max_detections] for values in self.merge(*merged)))
        size = x.get("height", image.shape[0]), x.get("width", image.shape[1])
        return self.model.to_instances(merged, frame, size)

    def look(self, image, view):
        """The `Instances` of an image (H, W, 3) in a view, upright, in pixels of the resized image."""
        resized = view.resize.get_transform(image).apply_image(image)
        height, width = resized.shape[:2]
        seen = resized[:, ::-1] if view.flip else resized
        tensor = torch.as_tensor(np.ascontiguousarray(seen.transpose(2, 0, 1)))
        found = self.model([{"image": tensor, "height": height, "width": width}])[0]["instances"]
        areas = found.pred_boxes.area()
        found = found[(areas > view.low**2) & (areas < view.high**2)]
        if view.flip:
            x1, y1, x2, y2 = found.pred_boxes.tensor.unbind(1)
            found.pred_boxes = Boxes(torch.stack([width - x2, y1, width - x1, y2], dim=1))
        return found


def suppress(boxes, scores, classes, threshold):
    """Non-maximum suppression, class by class: `Detections`."""
    keep = batched_nms(boxes, scores, classes, threshold)
    return Detections(boxes[keep], scores[keep], classes[keep])
