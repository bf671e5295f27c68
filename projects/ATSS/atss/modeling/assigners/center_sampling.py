"""Positives by FCOS's constraints among the cells nearest to an object's centre: the paper's "lite version"."""

import torch

from .invalid import InvalidObjects
from .matches import Claims, Objects, check_arguments, resolve_claims, unmatched
from .nearest import are_nearest, check_topk, pairs_of_ranks, rank_index, ranked_positions
from .registry import ASSIGNER_REGISTRY
from .scale_range import FCOS_RANGES, check_levels, check_ranges, claims_in_range
from .windows import BLOCK


@ASSIGNER_REGISTRY.register()
class CenterSamplingAssigner:
    """On each level the k cells nearest to the object's centre are candidates; the scale ranges choose among them.

    This is ATSS without its threshold (section 4.2, "lite version", Table 3). Candidates must lie inside the object;
    conflicts, ties and objects that match nothing are as in `ScaleRangeAssigner`, equal distances as in `ATSSAssigner`.

    Args:
        topk: k, cells on every level, up to 64.
        ranges: (low, high) for every level, finest first, in pixels, both included: see `ScaleRangeAssigner`.

    Raises:
        ValueError: topk out of range; ranges that are not pairs of numbers, low before high.
    """

    def __init__(self, topk=9, ranges=FCOS_RANGES):
        check_topk(topk)
        self.topk = topk
        self.ranges = check_ranges(ranges)
        self.invalid = InvalidObjects()

    @torch.no_grad()
    def __call__(self, grid, gt_boxes, ignore_boxes=None):
        """Match the anchors of N images to their objects: arguments, result and errors as in `ScaleRangeAssigner`."""
        check_arguments(grid, gt_boxes, ignore_boxes)
        check_levels(self.ranges, grid)
        matches = unmatched(grid, len(gt_boxes), ignore_boxes)
        if not any(map(len, gt_boxes)):
            return matches
        objects = Objects.of(gt_boxes)
        self.invalid.report_now(objects.valid)
        objects_a_block = max(1, BLOCK // (len(pairs_of_ranks(self.topk)) * len(grid.shapes)))
        blocks = zip(*(part.split(objects_a_block) for part in objects), strict=True)
        claims = [claims_of(Objects(*block), grid, self.topk, self.ranges) for block in blocks]
        resolve_claims(matches, Claims(*map(torch.cat, zip(*claims, strict=True))))
        return matches


def claims_of(objects, grid, k, ranges):
    """The `Claims` of M objects, before conflicts are resolved."""
    levels = grid.levels()
    low, high = objects.boxes.t().contiguous().split(2)
    positions, distances = ranked_positions(low, high, levels.sizes, levels.strides, grid.offset, k)
    pair, level, object = are_nearest(distances, k).nonzero().unbind(1)
    place = rank_index(k, pair.device)[:, pair]
    column, row = positions.flatten(0, 1)[place, level, object].long()
    return claims_in_range(objects, grid, ranges, object, level, column, row)
