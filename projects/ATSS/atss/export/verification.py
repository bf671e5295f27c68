"""Comparison of an exported model's detections with those of the PyTorch model.

Both compute the same in float32, but round differently. Where a score or an IoU is closer than `NEAR` to what it is
compared with, rounding decides the outcome: such boxes are undecided, and only one of both models may detect them.
"""

import copy
import sys
from dataclasses import dataclass, field

import torch
from detectron2.structures import ImageList
from torchvision.ops import box_iou

from ..modeling.inference import Detections, clip

# Maximum differences of the same box in both models: of a side in pixels, and of the score.
MAX_BOX_DIFFERENCE, MAX_SCORE_DIFFERENCE = 0.1, 1e-3
NEAR = 1e-3  # difference of two scores or IoUs below which rounding may reverse their order


@dataclass
class Comparison:
    """Differences between the detections of an exported model and of the PyTorch model."""

    num_images: int = 0
    num_boxes: int = 0  # that both detect
    box_difference: float = 0.0  # the largest difference of a side, in pixels
    score_difference: float = 0.0  # the largest
    num_undecided: int = 0  # undecided boxes that only one of both detects
    disagreements: list = field(default_factory=list)  # a str for every other box that only one of both detects

    def __str__(self):
        undecided = f" ({self.num_undecided} more depend on equal scores or IoUs)" if self.num_undecided else ""
        return (
            f"{self.num_boxes} boxes in {self.num_images} images{undecided}; largest differences: boxes "
            f"{self.box_difference:.1e} pixels, scores {self.score_difference:.1e}"
        )

    def add(self, exported, expected, candidates, margins, selector, clipped=None):
        """Compare the `Detections` of an image.

        `candidates` and `margins` are those of `candidates_of`, `selector` is the `BoxSelector` of the PyTorch model.
        `clipped` are the boxes of the candidates, clipped to the image; None if they are.
        """
        self.num_images += 1
        partner = match(exported, expected)
        common = partner >= 0
        partner = partner[common]
        if common.any():
            box_differences = (exported.boxes[common] - expected.boxes[partner]).abs()
            score_differences = (exported.scores[common] - expected.scores[partner]).abs()
            self.num_boxes += len(partner)
            self.box_difference = max(self.box_difference, box_differences.max().item())
            self.score_difference = max(self.score_difference, score_differences.max().item())
        missed = torch.ones_like(expected.scores, dtype=torch.bool)
        missed[partner] = False
        if common.all() and not missed.any():
            return
        undecided = find_undecided(candidates, margins, selector)
        if clipped is not None:
            candidates, undecided = candidates._replace(boxes=clipped), undecided | is_thin(clipped)
        undecided = pick(candidates, undecided)
        rest = {"exported": pick(exported, ~common), "PyTorch": pick(expected, missed)}
        for name, detections in rest.items():
            excused = match(detections, undecided) >= 0
            self.num_undecided += int(excused.sum())
            for box, score, label in zip(*(values.tolist() for values in pick(detections, ~excused)), strict=True):
                sides = ", ".join(f"{side:.1f}" for side in box)
                self.disagreements.append(
                    f"only the {name} model detects class {label}, score {score:.4f}, at [{sides}]"
                )


@torch.no_grad()
def compare(detector, model, batches, suppressed):
    """Compare an exported model with the detector it was exported from.

    Args:
        detector: `ATSS` on the CPU.
        model: function of images and sizes, see `ExportedATSS.forward`.
        batches: iterable of lists of images, (3, H, W) uint8 tensors.
        suppressed: whether the model includes non-maximum suppression.

    Returns:
        `Comparison`.
    """
    head, comparison = detector.head, Comparison()
    selector = head.box_selector if suppressed else without_suppression(head.box_selector)
    for images in batches:
        padded, grid, predictions = detector.predict([{"image": image} for image in images])
        expected = selector(grid, predictions, head.box_coding, padded.image_sizes)
        outputs = model(*side_by_side(images))
        for i, size in enumerate(padded.image_sizes):
            exported = pick(outputs, i)
            exported = pick(exported, exported.scores > 0)
            of_image = [None if values is None else values[i] for values in predictions.by_anchor()]
            candidates, margins = candidates_of(head, grid, of_image, size)
            clipped = clip(candidates.boxes, candidates.boxes.new_tensor(size[::-1]), head.box_coding.pixel_extent)
            comparison.add(exported, expected[i], candidates, margins, selector, clipped)
    return comparison


def without_suppression(selector):
    """A `BoxSelector` that returns all boxes that another one passes to non-maximum suppression."""
    selector = copy.copy(selector)
    selector.nms_threshold, selector.max_detections = torch.inf, sys.maxsize
    return selector


def side_by_side(images):
    """Images (3, H, W) as `ExportedATSS` expects them: (N, 3, H, W), and their sizes (N, 2)."""
    batch = ImageList.from_tensors(images)
    return batch.tensor, torch.tensor(batch.image_sizes)


def pick(detections, index):
    """The `Detections` that an index or a mask selects."""
    return Detections(*(values[index] for values in detections))


def match(first, second):
    """For every one of `Detections` the index of the nearest in others that has no partner yet, -1 for none.

    Partners have the same class, and their boxes and scores differ by no more than is allowed.
    """
    partner = torch.full((len(first.scores),), -1)
    for label in first.classes.unique():
        rows, columns = (first.classes == label).nonzero()[:, 0], (second.classes == label).nonzero()[:, 0]
        if not len(columns):
            continue
        boxes = torch.cdist(first.boxes[rows].double(), second.boxes[columns].double(), p=torch.inf)
        scores = (first.scores[rows, None] - second.scores[columns]).abs()
        distance = torch.maximum(boxes / MAX_BOX_DIFFERENCE, scores / MAX_SCORE_DIFFERENCE)
        for row, distances in zip(rows, distance, strict=True):
            nearest = distances.argmin()
            if distances[nearest] <= 1:
                partner[row] = columns[nearest]
                distance[:, nearest] = torch.inf
    return partner


def candidates_of(head, grid, predictions, size):
    """The boxes of an image that take part in non-maximum suppression, or might because of rounding.

    `head` is an `ATSSHead`, `predictions` are logits (R, C), deltas (R, 4) and centerness (R,) or None, `size` is
    (height, width).

    Returns:
        `Detections` of B boxes; (B,), how far the score of each is above what it needs to take part. This margin is
        above `NEAR` where the box surely takes part.
    """
    selector, coding = head.box_selector, head.box_coding
    logits, deltas, centerness = predictions
    of_class = logits.sigmoid()
    scores = of_class if centerness is None else of_class * centerness.sigmoid()[:, None]
    key, above = scores if selector.topk_by_centerness else of_class, of_class - selector.score_threshold
    levels = zip(key.split(grid.level_sizes), above.split(grid.level_sizes), strict=True)
    margins = torch.cat([margins_of(*level, selector.topk_per_level) for level in levels])

    anchor, label = (margins > -NEAR).nonzero(as_tuple=True)
    scores, margins = scores[anchor, label], margins[anchor, label]
    if centerness is not None and selector.score_root:
        scores = scores.sqrt()
    boxes = coding.decode(deltas[anchor], grid.boxes()[anchor])
    if selector.clip_before_nms:
        boxes = clip(boxes, boxes.new_tensor(size[::-1]), coding.pixel_extent)
        margins = margins.where(~is_thin(boxes), margins.clamp(max=NEAR))
    return Detections(boxes, scores, label), margins


def is_thin(boxes):
    """Whether rounding decides if boxes (B, 4), which are clipped, have any area: (B,) bool."""
    return (boxes[:, 2:] - boxes[:, :2]).amin(1) < MAX_BOX_DIFFERENCE


def margins_of(key, above, number):
    """How far scores (r, C) of a level are above what they need to take part.

    The `number` best are chosen by `key`; `above` are the class scores minus the score threshold.
    """
    competing = key[above > 0]
    if len(competing) <= number:
        return above
    last, next = competing.topk(number + 1).values[-2:]
    return torch.minimum(above, torch.where(key >= last, key - next, key - last))


def find_undecided(candidates, margins, selector):
    """Which boxes a `BoxSelector` may or may not return, depending on rounding: (B,) bool; see `candidates_of`."""
    boxes, scores, classes = candidates
    kept, gone = torch.zeros_like(classes, dtype=torch.bool), torch.zeros_like(classes, dtype=torch.bool)
    for label in classes.unique():
        mask = classes == label
        kept[mask], gone[mask] = suppressed(boxes[mask], scores[mask], margins[mask] > NEAR, selector.nms_threshold)
    # The numbers of boxes that may be better, and that surely are.
    may_be_better = (scores[~gone] > scores[:, None] - NEAR).sum(1)
    are_better = (scores[kept] > scores[:, None] + NEAR).sum(1)
    surely_returned = kept & (may_be_better <= selector.max_detections)
    surely_not = gone | (are_better >= selector.max_detections)
    return ~surely_returned & ~surely_not


def suppressed(boxes, scores, sure, iou_threshold):
    """Which boxes (B, 4) of one class non-maximum suppression surely keeps, and which it surely removes: two (B,) bool.

    `sure` (B,) are those that surely take part.
    """
    iou = box_iou(boxes, boxes).nan_to_num(0).fill_diagonal_(0)
    lead = scores - scores[:, None]  # of the column's box over the row's
    may_suppress = (iou > iou_threshold - NEAR) & (lead > -NEAR)
    must_suppress = (iou > iou_threshold + NEAR) & (lead > NEAR)
    gone = torch.zeros_like(sure)
    while True:
        # Boxes that are kept suppress others, boxes that are gone suppress none, until nothing more follows.
        before = gone
        kept = sure & ~(may_suppress & ~gone).any(1)
        gone = (must_suppress & kept).any(1)
        if torch.equal(before, gone):
            return kept, gone
