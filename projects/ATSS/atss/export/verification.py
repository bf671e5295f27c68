"""Does an exported model find what the PyTorch model finds? Rounding may turn what is decided within its reach."""

import copy
import sys
from dataclasses import dataclass, field

import torch
from torchvision.ops import box_iou

from ..modeling.inference import Detections, clip

# What boxes (pixels) and scores may differ by.
MAX_BOX_DIFFERENCE, MAX_SCORE_DIFFERENCE = 0.1, 1e-3
# How near a threshold, or each other, scores and IoUs are whose order rounding may turn.
NEAR = 1e-3


@dataclass
class Comparison:
    """How the boxes of an exported model and of the PyTorch model differ.

    num_images, num_boxes: images compared, and boxes that both find in them.
    box_difference: largest, of a side, in pixels.
    score_difference: largest.
    num_undecided: boxes that only one of both finds, because a score or an IoU is as good as equal to a threshold or to
        another's.
    disagreements: list of texts, a box each that only one of both finds without such a reason.
    """

    num_images: int = 0
    num_boxes: int = 0
    box_difference: float = 0.0
    score_difference: float = 0.0
    num_undecided: int = 0
    disagreements: list = field(default_factory=list)

    def __str__(self):
        undecided = f" ({self.num_undecided} more hang on equal scores or IoUs)" if self.num_undecided else ""
        return (
            f"{self.num_boxes} boxes in {self.num_images} images{undecided}; largest differences: boxes "
            f"{self.box_difference:.1e} pixels, scores {self.score_difference:.1e}"
        )


@torch.no_grad()
def compare(detector, model, batches, suppressed):
    """Compare an exported model with the detector that it was made of.

    Args:
        detector: `ATSS` on the CPU.
        model: function of images and sizes, see `ExportedATSS.forward`.
        batches: iterable of lists of images, (3, H, W) uint8 tensors.
        suppressed: whether non-maximum suppression is in the model.

    Returns:
        `Comparison`.
    """
    head, comparison = detector.head, Comparison()
    selector = head.box_selector if suppressed else without_suppression(head.box_selector)
    for images in batches:
        padded = detector.preprocess([{"image": image} for image in images])
        features = detector.backbone(padded.tensor)
        grid, predictions = head([features[name] for name in detector.in_features])
        expected = selector(grid, predictions, head.box_coding, padded.image_sizes)
        found = model(*side_by_side(images))
        for number, size in enumerate(padded.image_sizes):
            there = found[1][number] > 0
            of_image = Detections(*(values[number][there] for values in found))
            candidates = Candidates(head, grid, [v if v is None else v[number] for v in predictions], size)
            compare_image(comparison, of_image, expected[number], candidates, selector)
    return comparison


def without_suppression(selector):
    """A `BoxSelector` that gives everything that another's suppression sees."""
    selector = copy.copy(selector)
    selector.nms_threshold, selector.max_detections = torch.inf, sys.maxsize
    return selector


def side_by_side(images):
    """Images (3, H, W) as `ExportedATSS` wants them: (N, 3, H, W), and their sizes (N, 2)."""
    sizes = torch.tensor([image.shape[1:] for image in images])
    batch = torch.zeros(len(images), 3, *sizes.amax(0), dtype=torch.uint8)
    for place, image in zip(batch, images, strict=True):
        place[:, : image.shape[1], : image.shape[2]] = image
    return batch, sizes


def compare_image(comparison, found, expected, candidates, selector):
    """Add an image to a `Comparison`.

    Args:
        comparison: `Comparison`.
        found, expected: `Detections` of the exported model and of PyTorch's.
        candidates: `Candidates` of the image.
        selector: `BoxSelector` that gave `expected`.
    """
    comparison.num_images += 1
    partner = match(found, expected)
    there = partner >= 0
    if there.any():
        boxes, scores = expected.boxes[partner[there]], expected.scores[partner[there]]
        differences = (found.boxes[there] - boxes).abs().max().item(), (found.scores[there] - scores).abs().max().item()
        comparison.num_boxes += len(scores)
        comparison.box_difference = max(comparison.box_difference, differences[0])
        comparison.score_difference = max(comparison.score_difference, differences[1])
    missed = torch.ones_like(expected.scores, dtype=torch.bool)
    missed[partner[there]] = False
    left = {"the exported model": pick(found, ~there), "the PyTorch model": pick(expected, missed)}
    if not any(len(detections.scores) for detections in left.values()):
        return
    undecided = pick(candidates.detections, candidates.undecided(selector))
    for who, detections in left.items():
        excused = match(detections, undecided) >= 0
        comparison.num_undecided += int(excused.sum())
        for box, score, label in zip(*(values.tolist() for values in pick(detections, ~excused)), strict=True):
            sides = ", ".join(f"{side:.1f}" for side in box)
            comparison.disagreements.append(f"only {who} finds class {label}, score {score:.4f}, at [{sides}]")


def pick(detections, which):
    return Detections(*(values[which] for values in detections))


def match(first, second):
    """For every one of `Detections` the index of the nearest in others that has no partner yet, -1 for none.

    Partners are of one class, and their boxes and scores differ by no more than is allowed.
    """
    partner = torch.full((len(first.scores),), -1)
    for label in first.classes.unique():
        rows, columns = ((detections.classes == label).nonzero().squeeze(1) for detections in (first, second))
        boxes = torch.cdist(first.boxes[rows].double(), second.boxes[columns].double(), p=torch.inf)
        scores = (first.scores[rows, None] - second.scores[columns]).abs()
        distance = torch.maximum(boxes / MAX_BOX_DIFFERENCE, scores / MAX_SCORE_DIFFERENCE)
        for row in range(len(rows) if len(columns) else 0):
            nearest = distance[row].argmin()
            if distance[row, nearest] <= 1:
                partner[rows[row]] = columns[nearest]
                distance[:, nearest] = torch.inf
    return partner


class Candidates:
    """The boxes of an image that suppression sees, and those that rounding might let it see.

    Args:
        head: an `ATSSHead`.
        grid: the `AnchorGrid`.
        predictions: logits (R, C), deltas (R, 4) and centerness (R,) or None of the image.
        size: (height, width) of the image.

    Attributes:
        detections: `Detections` of B boxes.
        margins: (B,), by how much the score of each is above what takes part; by less than 0 for what rounding adds.
    """

    def __init__(self, head, grid, predictions, size):
        selector, coding = head.box_selector, head.box_coding
        nothing = [None] * len(grid.level_sizes)
        by_level = (nothing if values is None else values.split(grid.level_sizes) for values in predictions)
        found = []
        for anchors, logits, deltas, centerness in zip(grid.boxes().split(grid.level_sizes), *by_level, strict=True):
            of_class = logits.sigmoid()
            scores = of_class if centerness is None else of_class * centerness.sigmoid()[:, None]
            key = scores if selector.topk_by_centerness else of_class
            margin = margins_of(key, of_class - selector.score_threshold, selector.topk_per_level)
            anchor, label = (margin > -NEAR).nonzero(as_tuple=True)
            boxes = clip(coding.decode(deltas[anchor], anchors[anchor]), size, coding.pixel_extent)
            # Rounding gives or takes what has next to no area.
            sides = (boxes[:, 2:] - boxes[:, :2]).amin(1)
            margin = margin[anchor, label].clamp(max=NEAR).where(sides < MAX_BOX_DIFFERENCE, margin[anchor, label])
            scores = scores[anchor, label]
            rooted = centerness is not None and selector.score_root
            found.append((boxes, scores.sqrt() if rooted else scores, label, margin))
        *detections, self.margins = (torch.cat(values) for values in zip(*found, strict=True))
        self.detections = Detections(*detections)

    def undecided(self, selector):
        """Which boxes a model may give or not give after suppression by a `BoxSelector`: (B,) bool."""
        boxes, scores, classes = self.detections
        stays, goes = torch.zeros_like(classes, dtype=torch.bool), torch.zeros_like(classes, dtype=torch.bool)
        for label in classes.unique():
            of_class = classes == label
            sure = self.margins[of_class] > NEAR
            stays[of_class], goes[of_class] = suppressed(
                boxes[of_class], scores[of_class], sure, selector.nms_threshold
            )
        # At most so many are better, and at least so many.
        most, least = (count_above(scores[~goes], scores - NEAR), count_above(scores[stays], scores + NEAR))
        within, beyond = most <= selector.max_detections, least >= selector.max_detections
        return ~(stays & within) & ~goes & ~beyond


def margins_of(key, above, number):
    """By how much each score is above what takes part on a level: the shape of `key`.

    Args:
        key: what the `number` best are chosen by.
        above: class scores less their threshold, of the same shape.
    """
    competing = key[above > 0]
    if len(competing) <= number:
        return above
    last, next = competing.topk(number + 1).values[-2:]
    return torch.minimum(above, torch.where(key >= last, key - next, key - last))


def suppressed(boxes, scores, sure, iou_threshold):
    """What suppression surely does with boxes of one class.

    Args:
        boxes: (B, 4).
        scores: (B,).
        sure: (B,) bool, which of them are there whatever rounding does.
        iou_threshold: IoU above which the lower of two goes.

    Returns:
        two (B,) bool: which surely stay, which surely go.
    """
    iou = box_iou(boxes, boxes).nan_to_num(0).fill_diagonal_(0)
    better = scores - scores[:, None]  # column than row
    may = (iou > iou_threshold - NEAR) & (better > -NEAR)
    does = (iou > iou_threshold + NEAR) & (better > NEAR)
    stays, goes = torch.zeros_like(sure), torch.zeros_like(sure)
    while True:
        # What stays suppresses others, what goes spares them, until nothing more follows.
        before = goes
        stays = sure & ~(may & ~goes).any(1)
        goes = (does & stays).any(1)
        if torch.equal(before, goes):
            return stays, goes


def count_above(values, limits):
    """How many values (M,) are above each limit (B,)."""
    return len(values) - torch.searchsorted(values.sort().values, limits, right=True)
