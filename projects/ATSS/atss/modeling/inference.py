"""Post-processing: from the predictions of all anchors to the detections of an image, as in FCOS."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import nms

from .anchors import AnchorGrid
from .assigners.backends import settle_backend


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
        clip_before_nms: False to clip boxes to the image at last, as Detectron2 does; those without area in the image
            then take part in everything before.
    """

    def __init__(
        self,
        score_threshold: float = 0.05,
        topk_per_level: int = 1000,
        nms_threshold: float = 0.6,
        max_detections: int = 100,
        topk_by_centerness: bool = True,
        score_root: bool = True,
        clip_before_nms: bool = True,
    ):
        self.score_threshold = score_threshold
        self.topk_per_level = topk_per_level
        self.nms_threshold = nms_threshold
        self.max_detections = max_detections
        self.topk_by_centerness = topk_by_centerness
        self.score_root = score_root
        self.clip_before_nms = clip_before_nms

    @torch.no_grad()
    def __call__(self, grid: AnchorGrid, predictions, box_coding, image_sizes) -> list[Detections]:
        """Select the detections of N images.

        Args:
            grid: the R anchors.
            predictions: `Predictions`.
            box_coding: decodes the deltas.
            image_sizes: N pairs (height, width) in pixels, without padding.
        """
        found = self.candidates(grid, predictions, box_coding)
        limits = torch.tensor([size[::-1] for size in image_sizes]).to(found[0], non_blocking=True)
        function, options = suppress, {"num_classes": predictions.logits[0].shape[1] // grid.num_per_cell}
        if settle_backend("auto", limits.device) == "triton":
            from .kernels.suppression import suppress_with_triton

            function, options = suppress_with_triton, {}
        number = min(self.max_detections, found[1].shape[1])
        boxes, scores, classes = self.selected(*found, limits, box_coding.pixel_extent, number, function, **options)
        if torch.jit.is_tracing():  # a number would become a constant
            found = zip(boxes, scores, classes, scores > 0, strict=True)
            return [Detections(*(values[used] for values in of_image)) for *of_image, used in found]
        detections = zip(boxes, scores, classes, (scores > 0).sum(1).tolist(), strict=True)
        return [Detections(*(values[:number] for values in found)) for *found, number in detections]

    def candidates(self, grid: AnchorGrid, predictions, box_coding) -> tuple[Tensor, Tensor, Tensor]:
        """The best boxes of each level, in a number that depends on neither predictions nor image sizes.

        Returns:
            boxes (N, L K, 4), scores (N, L K) and classes (N, L K) int64 of L levels and K = `topk_per_level`, level by
            level, each best first; unused entries have score 0.
        """
        k, per_cell, levels = self.topk_per_level, grid.num_per_cell, grid.levels()
        logits, deltas = ([by_place(values, per_cell) for values in maps] for maps in predictions[:2])
        centerness = None
        # The best pairs of anchor and class are at the anchors whose best class is best.
        class_scores = in_full(torch.cat([of_level.amax(1) for of_level in logits], 1)).sigmoid()
        if predictions.centerness:
            centerness = torch.cat([of_level.flatten(1) for of_level in predictions.centerness], 1)
            centerness = in_full(centerness).sigmoid()
        sizes = [of_level.shape[2] for of_level in logits]
        keys, _ = self._rank(class_scores, centerness)
        # Padded, so that all levels have k.
        places = torch.stack([F.pad(key, (0, k)).topk(k).indices for key in keys.split(sizes, 1)], 1)  # (N, L, K)
        exists = places < levels.num_cells[:, None] * per_cell
        places = places * exists
        logits, deltas = (
            in_full(torch.stack([take(values, place) for values, place in zip(maps, places.unbind(1), strict=True)], 1))
            for maps in (logits, deltas)
        )  # (N, L, C, K) and (N, L, 4, K)
        if centerness is not None:
            index = places + levels.first[:, None] * per_cell
            centerness = centerness.gather(1, index.flatten(1)).view_as(places)[:, :, None]
        keys, scores = self._rank(logits.sigmoid() * exists[:, :, None], centerness)
        best_keys, pairs = keys.flatten(2).topk(k)  # pair: class times K plus place
        classes, chosen = pairs // k, pairs % k
        scores = best_keys if keys is scores else scores.flatten(2).gather(2, pairs) * (best_keys > 0)
        if centerness is not None and self.score_root:
            scores = scores.sqrt()
        anchors = grid.boxes_at(places.gather(2, chosen))
        deltas = take(deltas.flatten(0, 1), chosen.flatten(0, 1)).unflatten(0, (-1, len(sizes)))  # (N, L, 4, K)
        boxes = box_coding.decode(deltas.mT, anchors)
        return boxes.flatten(1, 2), scores.flatten(1), classes.flatten(1)

    def selected(self, boxes, scores, classes, limits, pixel_extent, number, suppress, **options):
        """The best `number` of boxes (N, B, 4), clipped to the images after non-maximum suppression or before it.

        Args:
            boxes, scores, classes: result of `candidates`.
            limits, pixel_extent: see `clipped`.
            number: how many boxes to return, padded with score 0.
            suppress: a function like `suppress`, and further arguments for it.
        """
        if self.clip_before_nms:
            boxes, scores = self.clipped(boxes, scores, limits, pixel_extent)
        kept = suppress(boxes, scores, classes, iou_threshold=self.nms_threshold, number=self.max_detections, **options)
        boxes, scores, classes = best(boxes, scores * kept, classes, number)
        if not self.clip_before_nms:
            boxes, scores = self.clipped(boxes, scores, limits, pixel_extent)
            boxes, scores, classes = best(boxes, scores, classes, number)
        return boxes, scores, classes

    @staticmethod
    def clipped(boxes, scores, limits, pixel_extent):
        """Boxes (N, B, 4) in images of width and height `limits` (N, 2); scores (N, B), 0 where no area is left."""
        boxes = clip(boxes, limits[:, None], pixel_extent)
        return boxes, scores * (boxes[..., 2:] > boxes[..., :2]).all(-1)

    def _rank(self, class_scores, centerness):
        """What to choose boxes by, and their scores: 0 where the class score is below the threshold."""
        above = class_scores.where(class_scores > self.score_threshold, 0)
        scores = above if centerness is None else above * centerness
        return (scores if self.topk_by_centerness else above), scores


def by_place(values: Tensor, num_anchors: int) -> Tensor:
    """(N, A * width, H, W) -> (N, width, A * H * W), a view for one anchor per cell."""
    return values.unflatten(1, (num_anchors, -1)).transpose(1, 2).flatten(2)


def in_full(values: Tensor) -> Tensor:
    """In float32 or better."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def take(values: Tensor, index: Tensor) -> Tensor:
    """Columns (N, width, k) of `values` (N, width, m) at `index` (N, k)."""
    return values.gather(2, index[:, None].expand(-1, values.shape[1], -1))


def suppress(boxes, scores, classes, iou_threshold, num_classes, number):
    """Non-maximum suppression per image and class.

    Args:
        boxes: (N, B, 4), x1 y1 x2 y2 in pixels.
        scores: (N, B); a score of 0 means no box.
        classes: (N, B) int64, below `num_classes`.
        iou_threshold: of two boxes with a greater IoU the one with the lower score is suppressed.
        num_classes: number of classes of the detector.
        number: how many of the best boxes per class are needed; ONNX's operator keeps no more.

    Returns:
        (N, B) bool, which boxes are kept.
    """
    image = torch.arange(scores.shape[0], device=boxes.device)[:, None]
    valid = (scores.flatten() > 0).nonzero().squeeze(1)
    group = torch.add(classes, image, alpha=num_classes).flatten()[valid]
    # Move the boxes of every class and image apart, in float64 so that they lose no digit.
    low, high = boxes.nan_to_num().aminmax()
    apart = boxes.flatten(0, 1)[valid] + (group * (high.double() - low + 1))[:, None]
    kept = valid[nms(apart, scores.flatten()[valid].double(), iou_threshold)]
    return torch.zeros_like(scores, dtype=torch.bool).flatten().index_fill(0, kept, 1).view_as(scores)


def best(boxes, scores, classes, number):
    """The best `number` of (N, B) boxes, best first, padded with score 0: boxes, scores and classes."""
    missing = max(0, number - scores.shape[1])
    if missing:
        boxes, scores = F.pad(boxes, (0, 0, 0, missing)), F.pad(scores, (0, missing))
        classes = F.pad(classes, (0, missing))
    scores, index = scores.topk(number)
    return take(boxes.mT, index).mT, scores, classes.gather(1, index)


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
    old, new = (torch.tensor(size[::-1]).to(boxes, non_blocking=True) for size in (old_size, new_size))
    # Multiply first: rounding must not move a box out of the image.
    low = boxes[:, :2] * new / old
    high = (boxes[:, 2:] - pixel_extent) * new / old + pixel_extent
    return torch.cat([low, high], dim=1)
