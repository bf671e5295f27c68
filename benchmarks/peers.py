"""Other implementations of the assigners, called like ours: (grid, gt_boxes) -> whatever they return."""

import importlib
import sys
import types
from pathlib import Path

import torch
from torchvision.ops import box_iou

# The rules that the paper's code has, and its names for them.
POSITIVE_TYPES = {"atss": "ATSS", "iou": "IoU", "scale_range": "SSC", "topk_iou": "TOPK"}


def naive(topk):
    """Algorithm 1 as it is written: every anchor against every object, image by image."""

    def assign(grid, gt_boxes):
        anchors = grid.boxes()
        return torch.stack([assign_image(grid, anchors, boxes) for boxes in gt_boxes])

    def assign_image(grid, anchors, boxes):
        if not len(boxes):
            return torch.full((len(anchors),), -1, device=anchors.device)
        anchor_centers, centers = (anchors[:, :2] + anchors[:, 2:]) / 2, (boxes[:, :2] + boxes[:, 2:]) / 2
        distances = (anchor_centers[:, None] - centers).square().sum(-1)
        ious = box_iou(anchors, boxes)

        candidates, first = [], 0
        for level in distances.split(grid.level_sizes):
            k = min(topk * grid.num_per_cell, len(level))
            candidates.append(level.topk(k, dim=0, largest=False).indices + first)
            first += len(level)
        candidates = torch.cat(candidates)
        candidate_ious = ious.gather(0, candidates)
        threshold = candidate_ious.mean(0) + candidate_ious.std(0)
        offsets = anchor_centers[candidates]
        inside = torch.cat([offsets - boxes[:, :2], boxes[:, 2:] - offsets], dim=-1).amin(-1) > 0.01
        positive = torch.zeros_like(ious, dtype=torch.bool)
        positive.scatter_(0, candidates, (candidate_ious >= threshold) & inside)
        best, matches = ious.where(positive, -1).max(1)
        return matches.where(best >= 0, -1)

    return assign


def paper(checkout, rule, topk, num_per_cell):
    """The target assignment of the paper's own code (sfzhang15/ATSS), from a checkout of its repository.

    It returns a list of labels (R,) for every image, and regression targets. The label of an anchor is the index of
    its object plus one, 0 for background and -1 for ignored.

    Args:
        checkout: folder of the checkout.
        rule: one of POSITIVE_TYPES.
        topk: k.
        num_per_cell: anchors per cell.
    """
    package = Path(checkout) / "atss_core"
    if not (package / "modeling/rpn/atss/loss.py").is_file():
        raise SystemExit(f"error: {checkout} is not a checkout of the paper's repository: it has no atss_core")
    # The packages' initialisation needs compiled code that the assigner does not.
    for name in ("", ".modeling", ".modeling.rpn", ".modeling.rpn.atss"):
        module = sys.modules["atss_core" + name] = types.ModuleType("atss_core" + name)
        module.__path__ = [str(package.joinpath(*name.split(".")[1:]))]
    layers = sys.modules["atss_core.layers"] = types.ModuleType("atss_core.layers")
    layers.nms = layers.ml_nms = layers.smooth_l1_loss = layers.SigmoidFocalLoss = lambda *args: None
    loss = importlib.import_module("atss_core.modeling.rpn.atss.loss")
    box_list = importlib.import_module("atss_core.structures.bounding_box").BoxList
    box_coder = importlib.import_module("atss_core.modeling.box_coder").BoxCoder((10.0, 10.0, 5.0, 5.0))
    settings = types.SimpleNamespace(
        POSITIVE_TYPE=POSITIVE_TYPES[rule],
        TOPK=topk,
        ASPECT_RATIOS=[1.0] * num_per_cell,
        SCALES_PER_OCTAVE=1,
        LOSS_GAMMA=2.0,
        LOSS_ALPHA=0.25,
        FG_IOU_THRESHOLD=0.5,
        BG_IOU_THRESHOLD=0.4,
    )
    config = types.SimpleNamespace(MODEL=types.SimpleNamespace(ATSS=settings))
    computation = loss.ATSSLossComputation(config, box_coder)

    def assign(grid, gt_boxes):
        size, targets = (1 << 20, 1 << 20), []
        anchors = [box_list(level, size) for level in grid.boxes().split(grid.level_sizes)]
        for boxes in gt_boxes:
            target = box_list(boxes, size)
            target.add_field("labels", torch.arange(1, len(boxes) + 1, device=boxes.device))
            targets.append(target)
        return computation.prepare_targets(targets, [anchors] * len(gt_boxes))

    return assign


def mmdet(topk, num_per_cell):
    """mmdetection's ATSSAssigner."""
    from mmdet.models.task_modules.assigners import ATSSAssigner
    from mmengine.structures import InstanceData

    # Its k does not grow with the number of anchors per cell.
    assigner = ATSSAssigner(topk=topk * num_per_cell)

    def assign(grid, gt_boxes):
        priors, results = grid.boxes(), []
        for boxes in gt_boxes:
            labels = torch.zeros(len(boxes), dtype=torch.int64, device=boxes.device)
            objects = InstanceData(bboxes=boxes, labels=labels)
            results.append(assigner.assign(InstanceData(priors=priors), grid.level_sizes, objects))
        return results

    return assign
