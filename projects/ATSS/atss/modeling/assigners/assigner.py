"""What all label assignment rules share: the registry, the call, the checks of its arguments."""

import logging
from collections.abc import Iterable, Sequence

import torch
from fvcore.common.registry import Registry
from torch import Tensor

from ..anchors import AnchorGrid
from .matches import GroundTruth, Positives, resolve_conflicts, unmatched

logger = logging.getLogger(__name__)

ASSIGNER_REGISTRY = Registry("ATSS_ASSIGNER")
ASSIGNER_REGISTRY.__doc__ = "Label assignment rules, by the name in MODEL.ATSS.ASSIGNER."


class Assigner:
    """Base of the rules. A rule overrides `positives`, or `match` where an anchor can be ignored for its IoU."""

    def __init__(self):
        self.invalid = InvalidBoxes()

    @torch.no_grad()
    def __call__(
        self, grid: AnchorGrid, gt_boxes: Sequence[Tensor], ignore_boxes: Sequence[Tensor] | None = None
    ) -> Tensor:
        """Match the anchors of N images to their ground truth boxes.

        Args:
            grid: the R anchors of the padded images.
            gt_boxes: N float tensors (G_i, 4), x1 y1 x2 y2 in pixels, on the grid's device.
            ignore_boxes: the same for regions without loss: an anchor whose centre lies in one and that matches no
                ground truth box is ignored.

        Returns:
            (N, R) int64: index of the matched ground truth box within its image, -1 for background, -2 for ignored.

        Raises:
            TypeError, ValueError: an argument of the wrong type, shape or device; the message names it.
        """
        check_arguments(grid, gt_boxes, ignore_boxes)
        return self.assign(grid, gt_boxes, ignore_boxes)

    def assign(self, grid, gt_boxes, ignore_boxes):
        """`__call__` with checked arguments."""
        matches = unmatched(grid, len(gt_boxes), ignore_boxes)
        if any(map(len, gt_boxes)):
            gt = GroundTruth.of(gt_boxes)
            self.invalid.report_now(gt.valid)
            self.match(matches, gt, grid)
        return matches

    def match(self, matches: Tensor, gt: GroundTruth, grid: AnchorGrid) -> None:
        """Write the indices of matched ground truth boxes into `matches` (N, R) int64."""
        resolve_conflicts(matches, *map(torch.cat, zip(*self.positives(gt, grid), strict=True)))

    def positives(self, gt: GroundTruth, grid: AnchorGrid) -> Iterable[Positives]:
        """Positives of all ground truth boxes in blocks, at least one, before conflicts are resolved."""
        raise NotImplementedError


class InvalidBoxes:
    """Count ground truth boxes without area or with coordinates that are not finite; warn of the first ones."""

    def __init__(self):
        self.warned = False
        # By device. The tensors are never replaced: CUDA graphs write to them.
        self._counts = {}

    def report_now(self, valid: Tensor) -> None:
        """Warn if any of `valid` (M,) bool is False."""
        if not self.warned and not valid.all():
            self._warn(int((~valid).sum()))

    def on_device(self, device: torch.device) -> Tensor:
        """The counter that kernels increment: (1,) int32 on `device`."""
        if device not in self._counts:
            on_host = torch.zeros(1, dtype=torch.int32, pin_memory=device.type == "cuda")
            self._counts[device] = torch.zeros_like(on_host, device=device), on_host
        return self._counts[device][0]

    def report_later(self, device: torch.device) -> None:
        """Warn of what kernels have counted, without a device synchronisation: perhaps one call late."""
        on_device, on_host = self._counts[device]
        if not self.warned:
            on_host.copy_(on_device, non_blocking=True)
            if on_host.item():
                self._warn(on_host.item())

    def _warn(self, number):
        self.warned = True
        logger.warning(
            "%d ground truth box(es) without area or with coordinates that are not finite match nothing. "
            "This warning appears once.",
            number,
        )


def check_arguments(grid, gt_boxes, ignore_boxes):
    """Check types, shapes, dtypes and devices of an assigner's arguments; see `Assigner.__call__`."""
    if not isinstance(grid, AnchorGrid):
        raise TypeError(f"grid: expected an AnchorGrid, got {type(grid).__name__}")
    check_boxes("gt_boxes", gt_boxes, grid.device)
    if ignore_boxes is not None:
        check_boxes("ignore_boxes", ignore_boxes, grid.device)
        if len(ignore_boxes) != len(gt_boxes):
            raise ValueError(
                f"ignore_boxes: expected one tensor for each of the {len(gt_boxes)} images of gt_boxes, got "
                f"{len(ignore_boxes)}"
            )


def check_boxes(name, boxes_by_image, device):
    if not isinstance(boxes_by_image, (list, tuple)):
        raise TypeError(f"{name}: expected a list of tensors, one per image, got {type(boxes_by_image).__name__}")
    for i, boxes in enumerate(boxes_by_image):
        if not isinstance(boxes, Tensor):
            raise TypeError(f"{name}[{i}]: expected a tensor (number of boxes, 4), got {type(boxes).__name__}")
        if boxes.ndim != 2 or boxes.shape[1] != 4:
            raise ValueError(f"{name}[{i}]: expected shape (number of boxes, 4), got {tuple(boxes.shape)}")
        if not boxes.is_floating_point():
            raise TypeError(f"{name}[{i}]: expected float32, got {boxes.dtype}")
        if boxes.device != device:
            raise ValueError(f"{name}[{i}]: expected device {device}, that of the grid, got {boxes.device}")
