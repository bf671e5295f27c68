"""How many positives per object gets, by its size and shape (section 3.2), counted without opening an image."""

from typing import NamedTuple

import numpy as np
import torch
from detectron2.data.detection_utils import (
    annotations_to_instances,
    filter_empty_instances,
    transform_instance_annotations,
)
from detectron2.structures import ImageList

from ..data import EvalResize, read_dataset
from ..modeling.detector import ATSS


class Positives(NamedTuple):
    """The positives of M objects.

    widths, heights: (M,) float32, of the objects, in pixels of the resized image.
    counts: (M,) int64, how many positives each has.
    scales: (M,) float32, pixels of the resized image a pixel of the original.
    """

    widths: torch.Tensor
    heights: torch.Tensor
    counts: torch.Tensor
    scales: torch.Tensor

    def sides(self):
        """(M,) float32: roots of the objects' areas, in pixels of the resized image."""
        return (self.widths * self.heights).sqrt()

    def aspect_ratios(self):
        """(M,) float32: height / width."""
        return self.heights / self.widths


class Bin(NamedTuple):
    """Objects with a size or aspect ratio from `low` to below `high`: how many, and their positives per object."""

    low: float
    high: float
    objects: int
    mean: float
    lower_quartile: float
    upper_quartile: float


class Geometry:
    """What the detector makes of an image before it looks at it: size, objects and anchors.

    Images are resized as for testing (INPUT.MIN_SIZE_TEST, INPUT.MAX_SIZE_TEST), also where training draws their
    size, and padded one by one. All else comes from the loader's functions and the detector's own backbone and head.

    Args:
        cfg: config of an ATSS model; its weights are not read.

    Attributes:
        assigner: the rule that the config names.
        num_per_cell: A, anchors per cell.
        num_levels: L.
    """

    def __init__(self, cfg):
        parts = ATSS.from_config(on_cpu(cfg))
        # On the meta device feature maps have shapes but no values: nothing is computed.
        self._backbone = parts["backbone"].to("meta").eval()
        self._head = parts["head"]
        self._in_features = parts["in_features"]
        self._resize = EvalResize.of(cfg)
        self._grids = {}
        self.assigner = self._head.assigner
        self.num_per_cell = len(self._head.cell_anchors_0)
        self.num_levels = len(self._in_features)

    def resize(self, record):
        """The transform that brings an image to the size that it is tested at.

        Args:
            record: dict of an image in Detectron2's standard form.
        """
        return self._resize.of_size(record["height"], record["width"])

    def boxes(self, record):
        """The objects of an image that can be learnt: (G, 4) float32, x1 y1 x2 y2 in pixels of the resized image.

        Crowd regions and boxes without area are left out, as the loader does.
        """
        resize = self.resize(record)
        size = resize.new_h, resize.new_w
        objects = [
            {key: annotation[key] for key in ("bbox", "bbox_mode", "category_id")}
            for annotation in record.get("annotations", [])
            if not annotation.get("iscrowd", 0)
        ]
        objects = [transform_instance_annotations(object, [resize], size) for object in objects]
        return filter_empty_instances(annotations_to_instances(objects, size)).gt_boxes.tensor

    @torch.no_grad()
    def grid(self, record):
        """The `AnchorGrid` of an image, resized and padded."""
        resize = self.resize(record)
        image = torch.empty(3, resize.new_h, resize.new_w, device="meta")
        padded = ImageList.from_tensors([image], self._backbone.size_divisibility).tensor
        if padded.shape not in self._grids:
            features = self._backbone(padded)
            self._grids[padded.shape] = self._head.grid([features[name].shape[-2:] for name in self._in_features])
        return self._grids[padded.shape]


def on_cpu(cfg, assigner=None):
    """The config with its rule, or the one named `assigner`, running on the CPU; matches are the same everywhere."""
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.ATSS.ASSIGNER_BACKEND = "torch"
    if assigner:
        cfg.MODEL.ATSS.ASSIGNER = assigner
    return cfg


def count_positives(geometry, records, assigner):
    """The positives of all objects of some images.

    Args:
        geometry: `Geometry` of the detector.
        records: dicts of the images in Detectron2's standard form.
        assigner: the rule, see `atss.assigners`.

    Returns:
        `Positives` of the M objects, image by image.
    """
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
    """The positives of all objects of some datasets.

    Args:
        cfg: config of an ATSS model.
        datasets: names of registered datasets.
        assigner: the rule; that of the config where it is not given.

    Returns:
        `Positives` of the M objects, in the order of the datasets.

    Raises:
        InputError: a dataset's files are missing or malformed.
    """
    geometry = Geometry(cfg)
    records = [record for name in datasets for record in read_dataset(name)]
    return count_positives(geometry, records, assigner or geometry.assigner)


def positives_per_object(cfg):
    """Mean number of positives of an object in the training datasets of a config; nan if they have none.

    Raises:
        InputError: a dataset's files are missing or malformed.
    """
    return positives_of(cfg, cfg.DATASETS.TRAIN).counts.double().mean().item()


def binned(values, counts, per_octave=2):
    """Positives per object by a quantity of the objects, in bins that are even on a log axis.

    Args:
        values: (M,) float tensor, positive: `Positives.sides()` or `Positives.aspect_ratios()`.
        counts: (M,) int64, `Positives.counts`.
        per_octave: bins from one power of two to the next, which is always the edge of one.

    Returns:
        list of `Bin`, lowest first, without the empty ones.
    """
    counts = counts.numpy()
    number = (values.double().log2() * per_octave).floor().int().numpy()
    bins = []
    for n in np.unique(number).tolist():
        inside = counts[number == n]
        lower, upper = np.quantile(inside, [0.25, 0.75]).tolist()
        edges = (2 ** (edge / per_octave) for edge in (n, n + 1))
        bins.append(Bin(*edges, len(inside), float(inside.mean()), lower, upper))
    return bins
