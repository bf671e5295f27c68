"""Adaptive training sample selection: Algorithm 1 of the paper, for a whole batch at once."""

import torch

from .matches import Objects, ignore_inside, resolve_claims
from .registry import ASSIGNER_REGISTRY

# "Centre inside the object" means farther than this many pixels from each of its sides, as in the paper's code.
INSIDE_MARGIN = 0.01


@ASSIGNER_REGISTRY.register()
class ATSSAssigner:
    """Every object chooses its positives by the statistics of its nearest anchors (section 3.2, Algorithm 1).

    On each level the k anchors nearest to the object's centre are its candidates (k x A where a cell has A anchors).
    Those whose IoU with it reaches the mean plus the standard deviation of all its candidates' IoUs, and whose centre
    lies in it, are positive. An anchor that several objects claim goes to the one with the highest IoU.

    Where the paper leaves a choice: of anchors equally far the one with the lower index comes first; of objects with
    equal IoU the one with the lower index wins; the standard deviation is that of a sample (divided by n - 1), 0 for a
    single candidate; an object without area or with coordinates that are not finite matches nothing. A level with fewer
    than k cells gives all it has.

    Nothing is computed for all anchors: an object costs a few dozen candidates a level, whatever the picture's size.

    Args:
        topk: k, candidates of an object on every level (and for each anchor of a cell).

    Raises:
        ValueError: k is not positive.
    """

    def __init__(self, topk=9):
        if topk < 1:
            raise ValueError(f"topk must be at least 1, got {topk}")
        self.topk = topk

    @torch.no_grad()
    def __call__(self, grid, gt_boxes, ignore_boxes=None):
        """Match the anchors of N pictures to their objects.

        Args:
            grid: the `AnchorGrid` of the (padded) pictures, R anchors centred on their cells.
            gt_boxes: list of N tensors (G_i, 4), x1 y1 x2 y2 in pixels.
            ignore_boxes: the same for regions without loss, or None.

        Returns:
            (N, R) int64: index of the object within its picture, -1 for background, -2 for ignored.
        """
        objects, anchor_boxes = Objects.of(gt_boxes), grid.boxes()
        anchor_centers = (anchor_boxes[:, :2] + anchor_boxes[:, 2:]) / 2

        candidates = self.candidates(grid, objects.boxes)
        ious = pair_iou(objects.boxes[:, None], anchor_boxes[candidates])
        threshold = ious.mean(1, keepdim=True) + sample_std(ious)
        inside = is_inside(anchor_centers[candidates], objects.boxes[:, None])
        positive = (ious >= threshold) & inside & objects.valid[:, None]

        matches = resolve_claims(len(gt_boxes), len(grid), objects, candidates, ious, positive)
        return matches if ignore_boxes is None else ignore_inside(matches, anchor_centers, ignore_boxes)

    def candidates(self, grid, boxes):
        """Lines 3 to 6 of Algorithm 1: indices (M, K) of the anchors nearest to the centres of `boxes` (M, 4)."""
        centers = (boxes[:, :2] + boxes[:, 2:]) / 2
        candidates, first = [], 0
        levels = zip(grid.shapes, grid.strides, grid.cell_anchors, grid.level_sizes, strict=True)
        for shape, stride, cell_anchors, size in levels:
            cells = nearest_cells(centers, shape, stride, grid.offset, self.topk)
            in_cell = torch.arange(len(cell_anchors), device=cells.device)
            candidates.append((first + cells[:, :, None] * len(cell_anchors) + in_cell).flatten(1))
            first += size
        return torch.cat(candidates, dim=1)


def nearest_cells(centers, shape, stride, offset, k):
    """The k cells of a level whose centres are nearest to each point, all of them where there are fewer.

    Rank the columns by their distance to the point, nearest first, and the rows likewise. If the cell in the column of
    rank i and the row of rank j is among the k nearest, then so are all cells with no higher column rank and no
    higher row rank, because none of them is farther (and among equals their index is lower). There are i j of them:
    hence i j <= k, and only the pairs of ranks with i j <= k need a look, 23 of them for k = 9. This holds for every
    point, inside the picture or not, and for every grid.

    Args:
        centers: (M, 2), x y in pixels, finite.
        shape: (H, W) of the level.
        stride, offset: the level's stride in pixels, the cells' offset in strides.
        k: how many.

    Returns:
        (M, min(k, H W)) int64, row * W + column of each, in no particular order.
    """
    height, width = shape
    columns, dx = ranked_positions(centers[:, 0], width, stride, offset, k)
    rows, dy = ranked_positions(centers[:, 1], height, stride, offset, k)
    pairs = [(j, i) for j in range(rows.shape[1]) for i in range(columns.shape[1]) if (j + 1) * (i + 1) <= k]
    j, i = torch.tensor(pairs, device=centers.device).unbind(1)
    cells = rows[:, j] * width + columns[:, i]
    distances = dy[:, j] ** 2 + dx[:, i] ** 2
    # Distance first, index second, in one integer: the bits of a float that is not negative are ordered as it is.
    keys = (distances.view(torch.int32).long() << 32) | cells
    nearest = keys.topk(min(k, height * width), dim=1, largest=False, sorted=False).values
    return nearest & 0xFFFFFFFF


def ranked_positions(points, size, stride, offset, k):
    """Columns (or rows) of a level by their distance to each point, nearest first, the lower index first of equals.

    The n nearest of them are n neighbours; they begin at ceil(u - n / 2), u being the point in cells, or as near to it
    as the grid allows. The one of rank n is what these n have more than the n - 1 nearest: their first or their last.

    Args:
        points: (M,) coordinate in pixels.
        size: number of columns.

    Returns:
        (M, min(k, size)) int64 positions, and (M, min(k, size)) float32 distances to the point in pixels.
    """
    rank = torch.arange(1, min(k, size) + 1, device=points.device)
    # Beyond the grid by more than its size the order no longer changes; bounding keeps integers in range.
    u = (points / stride - offset).clamp(-size, 2 * size)
    first = (u[:, None] - rank / 2).ceil().long().clamp(min=0).minimum(size - rank)
    moved = first[:, 1:] < first[:, :-1]
    positions = torch.cat([first[:, :1], torch.where(moved, first[:, 1:], first[:, 1:] + rank[1:] - 1)], dim=1)
    return positions, (positions + offset) * stride - points[:, None]


def pair_iou(boxes, others):
    """IoU (...) of boxes (..., 4) with others (..., 4), pair by pair; 0 for a pair without area."""
    low, high = torch.maximum(boxes[..., :2], others[..., :2]), torch.minimum(boxes[..., 2:], others[..., 2:])
    intersection = (high - low).clamp(min=0).prod(-1)
    area, other_area = ((b[..., 2:] - b[..., :2]).prod(-1) for b in (boxes, others))
    union = area + other_area - intersection
    return torch.where(union > 0, intersection / union, 0)


def sample_std(values):
    """Standard deviation of a sample along dimension 1, kept: (M, K) -> (M, 1); 0 for a single value."""
    deviations = values - values.mean(1, keepdim=True)
    return (deviations.square().sum(1, keepdim=True) / max(1, values.shape[1] - 1)).sqrt()


def is_inside(points, boxes):
    """Whether points (..., 2) lie in boxes (..., 4), by INSIDE_MARGIN pixels at least: (...) bool."""
    return (torch.cat([points - boxes[..., :2], boxes[..., 2:] - points], dim=-1) > INSIDE_MARGIN).all(-1)
