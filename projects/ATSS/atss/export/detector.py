"""A detector as one module of tensors: N images in, a fixed number of boxes per image out."""

import torch
from torch import nn
from torch.nn import functional as F

from ..modeling import for_inference
from ..modeling.detector import network
from ..predictor import class_names_of


class ExportedATSS(nn.Module):
    """An `ATSS` at inference without data-dependent Python; it gives the same detections.

    Args:
        detector: an `ATSS`, which is copied.
        suppress: non-maximum suppression, a function like `selection.suppress`; None to return all candidates.
    """

    def __init__(self, detector, suppress=None):
        super().__init__()
        self.detector = for_inference(detector)
        self.suppress = suppress
        self.eval()

    def forward(self, images, sizes):
        """Detect objects in N images.

        Args:
            images: (N, 3, H, W) uint8 in the order of INPUT.FORMAT, each in the upper left corner; the values outside
                are ignored.
            sizes: (N, 2) int64, height and width of every image in pixels.

        Returns:
            `boxes` (N, D, 4) float32, x1 y1 x2 y2 in pixels of `images`, clipped to the image; `scores` (N, D)
            float32; and `classes` (N, D) int64. With suppression D is TEST.DETECTIONS_PER_IMAGE, best first; without it
            the candidates of all levels, level by level. Unused entries have score 0, class -1 and a box of zeros.
        """
        head = self.detector.head
        selector, coding = head.box_selector, head.box_coding
        grid, predictions = network(self.detector, self.prepare(images, sizes))
        boxes, scores, classes = selector.candidates(grid, predictions, coding)
        limits = sizes.flip(1).to(boxes.dtype), coding.pixel_extent
        if self.suppress is None:
            boxes, scores = selector.clipped(boxes, scores, *limits)
        else:
            options = {"suppress": self.suppress, "num_classes": head.num_classes}
            found = boxes, scores, classes
            boxes, scores, classes = selector.selected(*found, *limits, selector.max_detections, **options)
        used = scores > 0
        return boxes.where(used[..., None], 0), scores, classes.where(used, -1)

    def prepare(self, images, sizes):
        """Images as `ATSS.preprocess` makes them: normalised, 0 outside, padded as the largest of them requires.

        The caller's own padding must not remain, because group normalisation depends on it.
        """
        multiple = self.detector.size_divisibility
        rows, columns = ((sizes.amax(0) + (multiple - 1)) // multiple).tolist()
        # Tells the exporter that feature maps are not empty.
        torch._check(rows >= 1)
        torch._check(columns >= 1)
        height, width = images.shape[-2:]
        y, x = torch.arange(height, device=images.device), torch.arange(width, device=images.device)
        inside = (y < sizes[:, :1])[:, None, :, None] & (x < sizes[:, 1:])[:, None, None, :]
        normalised = (images - self.detector.pixel_mean) / self.detector.pixel_std
        # The padding is negative where the caller has padded further.
        return F.pad(normalised.where(inside, 0), (0, columns * multiple - width, 0, rows * multiple - height))


def describe(cfg, suppressed):
    """The settings that a program needs to use an exported model, stored in every file format: a dict of JSON values.

    `suppressed` is whether the model includes non-maximum suppression.
    """
    return {
        "class_names": class_names_of(cfg),
        "input_format": cfg.INPUT.FORMAT,
        "min_size": cfg.INPUT.MIN_SIZE_TEST,
        "max_size": cfg.INPUT.MAX_SIZE_TEST,
        "resize_like": cfg.INPUT.RESIZE_LIKE,
        "pixel_extent": cfg.MODEL.ATSS.PIXEL_EXTENT,
        "suppressed": suppressed,
        "nms_threshold": cfg.MODEL.ATSS.NMS_THRESH_TEST,
        "max_detections": cfg.TEST.DETECTIONS_PER_IMAGE,
    }
