"""Positives per object, by its size and shape (section 3.2 of the paper), counted without reading an image."""

import math
from typing import NamedTuple

import numpy as np
import torch
from detectron2.data.transforms import TransformList
from detectron2.structures import ImageList

from ..data import EvalResize, read_dataset
from ..data.mapper import BoxDatasetMapper
from ..modeling.detector import ATSS


class Positives(NamedTuple):
    """The positives of M objects."""

    widths: torch.Tensor  # (M,) float32, of the objects, in pixels of the resized image
    heights: torch.Tensor  # (M,) float32
    counts: torch.Tensor  # (M,) int64, number of positives
    scales: torch.Tensor  # (M,) float32, width of the resized image / width of the original

    def sides(self):
        """Return (M,) float32: square roots of the objects' areas."""
        return (self.widths * self.heights).sqrt()

    def aspect_ratios(self):
        """Return (M,) float32: height / width."""
        return self.heights / self.widths


class Bin(NamedTuple):
    """Positives per object of the objects whose size or aspect ratio is in [low, high)."""

    low: float
    high: float
    objects: int
    mean: float
    lower_quartile: float
    upper_quartile: float


class Geometry:
    """The sizes, ground-truth boxes and anchors that a detector works with, computed from annotations alone.

    Images are resized as for testing (INPUT.MIN_SIZE_TEST, INPUT.MAX_SIZE_TEST), even if training draws their size, and
    padded one by one. Boxes are transformed by the loader's mapper; the anchors are those of the detector's head, whose
    weights are not loaded.
    """

    def __init__(self, cfg):
        parts = ATSS.from_config(on_cpu(cfg))
        # On the meta device feature maps have shapes but no values.
        self._backbone = parts["backbone"].to("meta").eval()
        self._head, self._in_features = parts["head"], parts["in_features"]
        self._multiple = math.lcm(max(self._backbone.size_divisibility, 1), parts["size_divisibility"])
        self._resize, self._mapper, self._grids = EvalResize.of(cfg), BoxDatasetMapper(cfg, True), {}
        self.assigner = self._head.assigner  # the label assignment that the config names
        self.num_per_cell = len(next(iter(self._head.cell_anchors)))  # A, anchors per cell
        self.num_levels = len(self._in_features)  # L

    def resize(self, record):
        """Return the transform that resizes an image, given as a dict in Detectron2's standard format."""
        return self._resize.of_size(record["height"], record["width"])

    def boxes(self, record):
        """Return the boxes of an image that training uses: (G, 4) float32, x1 y1 x2 y2 in pixels of the resized image.

        Crowd regions and boxes without area are skipped, as by the loader.
        """
        resize = self.resize(record)
        loaded = {"annotations": [dict(annotation) for annotation in record.get("annotations", [])]}
        self._mapper._transform_annotations(loaded, TransformList([resize]), (resize.new_h, resize.new_w))
        return loaded["instances"].gt_boxes.tensor

    @torch.no_grad()
    def grid(self, record):
        """Return the `AnchorGrid` of an image, resized and padded."""
        resize = self.resize(record)
        image = torch.empty(3, resize.new_h, resize.new_w, device="meta")
        padded = ImageList.from_tensors([image], self._multiple).tensor
        if padded.shape not in self._grids:
            features = self._backbone(padded)
            self._grids[padded.shape] = self._head.grid([features[name].shape[-2:] for name in self._in_features])
        return self._grids[padded.shape]


def on_cpu(cfg, assigner=None):
    """Return a copy of a config whose label assignment, or the one named `assigner`, runs on the CPU."""
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.ATSS.ASSIGNER_BACKEND = "torch"
    cfg.MODEL.ATSS.ASSIGNER = assigner or cfg.MODEL.ATSS.ASSIGNER
    return cfg


def count_positives(geometry, records, assigner):
    """Return the `Positives` of all objects of some images, dicts in Detectron2's standard format, in order."""
    sides, counts, scales = [torch.empty(0, 2)], [torch.empty(0, dtype=torch.int64)], [torch.empty(0)]
    for record in records:
        boxes = geometry.boxes(record)
        matches = assigner(geometry.grid(record), [boxes])
        counts.append(torch.bincount(matches[matches >= 0], minlength=len(boxes)))
        sides.append(boxes[:, 2:] - boxes[:, :2])
        scales.append(torch.full((len(boxes),), geometry.resize(record).new_w / record["width"]))
    widths, heights = torch.cat(sides).unbind(1)
    return Positives(widths, heights, torch.cat(counts), torch.cat(scales))


def positives_of(cfg, datasets, assigner=None):
    """Return the `Positives` of all objects of some registered datasets, in order, by default with a config's assigner.

    Raises an InputError if a dataset's files are missing or malformed.
    """
    geometry = Geometry(cfg)
    records = [record for name in datasets for record in read_dataset(name)]
    return count_positives(geometry, records, assigner or geometry.assigner)


def positives_per_object(cfg):
    """Return the mean number of positives per object of a config's training datasets; NaN without objects."""
    return positives_of(cfg, cfg.DATASETS.TRAIN).counts.double().mean().item()


def binned(values, counts, per_octave=2):
    """Return the positives per object as a list of `Bin`, lowest first, without empty ones; powers of two are edges.

    `values`, (M,) positive float, are `Positives.sides()` or `Positives.aspect_ratios()`; `counts` `Positives.counts`.
    """
    counts = counts.numpy()
    numbers = (values.double().log2() * per_octave).floor().int().numpy()
    bins = []
    for number in np.unique(numbers).tolist():
        inside = counts[numbers == number]
        low, high = 2 ** (number / per_octave), 2 ** ((number + 1) / per_octave)
        bins.append(Bin(low, high, len(inside), float(inside.mean()), *np.quantile(inside, [0.25, 0.75]).tolist()))
    return bins
