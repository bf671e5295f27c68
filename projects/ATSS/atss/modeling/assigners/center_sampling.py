"""FCOS's constraints on the cells nearest to a ground truth box's centre: the paper's "lite version"."""

from .assigner import ASSIGNER_REGISTRY
from .nearest import are_nearest, check_topk, pairs_of_ranks, rank_index, ranked_positions
from .scale_range import FCOS_RANGES, ScaleRangeAssigner
from .windows import BLOCK


@ASSIGNER_REGISTRY.register()
class CenterSamplingAssigner(ScaleRangeAssigner):
    """Apply the scale ranges of `ScaleRangeAssigner` to the k cells per level nearest to the ground truth box's centre.

    This is ATSS without its threshold (section 4.2, "lite version", Table 3). Cells at equal distance are ordered as in
    `ATSSAssigner`, everything else is as in `ScaleRangeAssigner`.

    Args:
        topk: k, cells per level, up to 64.
        ranges: see `ScaleRangeAssigner`.

    Raises:
        ValueError: topk out of range, or ranges that are not pairs of numbers with low < high.
    """

    def __init__(self, topk: int = 9, ranges=FCOS_RANGES):
        super().__init__(ranges)
        check_topk(topk)
        self.topk = topk

    def positives(self, gt, grid):
        levels = grid.levels()
        for block in gt.split(BLOCK // (len(pairs_of_ranks(self.topk)) * len(grid.shapes))):
            low, high = block.boxes.t().contiguous().split(2)
            positions, distances = ranked_positions(low, high, levels.sizes, levels.strides, grid.offset, self.topk)
            pair, level, box = are_nearest(distances, self.topk).nonzero().unbind(1)
            rank = rank_index(self.topk, pair.device)[:, pair]
            column, row = positions.flatten(0, 1)[rank, level, box].long()
            yield self.positives_among(block, grid, box, level, column, row)
