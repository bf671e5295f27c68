"""Detection in overlapping tiles of an image, for large images and small objects."""

from itertools import islice

import numpy as np
import torch
from detectron2.structures import Instances
from torch import nn

from ..data import EvalResize
from ..data.tiles import tiles_of
from ..modeling.inference import Detections
from .augmentation import merge_of

# Tiles per batch on a GPU, unless TEST.TILE.BATCH_SIZE says otherwise. A CPU gains little from batches.
GPU_BATCH_SIZE = 8
# Share of the tiles' overlap by which cores are extended: both neighbours keep the boxes whose centres are so near to
# the middle that they could see them on different sides of it.
MARGIN = 0.125
EXPERIMENT = {"core": True, "touch": None, "cover": None, "whole": "all"}


class TiledTest(nn.Module):
    """Run a detector on tiles of each image, and on the whole image, and merge the boxes; called like the detector.

    An image that is no larger than a tile gets exactly the detector's boxes.

    Args:
        model: an `ATSS`, or a `MultiScaleTest` of one.
        resize: `EvalResize` for tiles and whole images, None to leave them as they are.
        size, overlap: see `tiles_of`.
        whole: True to detect in the whole image, too.
        merge: as for `MultiScaleTest`.
        batch_size: number of tiles that go through the model together.
    """

    def __init__(self, model, resize, size, overlap, whole, merge, batch_size=1):
        super().__init__()
        self.model = model
        self.resize = resize
        self.size = size
        self.overlap = overlap
        self.whole = whole
        self.merge = merge
        self.batch_size = batch_size

    @classmethod
    def of(cls, cfg, model):
        """Build it from TEST.TILE of a config, for an `ATSS`, or a `MultiScaleTest` where TEST.AUG is enabled."""
        tile, is_cuda = cfg.TEST.TILE, cfg.MODEL.DEVICE.startswith("cuda")
        resize = None if cfg.TEST.AUG.ENABLED else EvalResize.of(cfg)
        batch_size = tile.BATCH_SIZE or (GPU_BATCH_SIZE if is_cuda else 1)
        return cls(model, resize, tile.SIZE, tile.OVERLAP, tile.WHOLE_IMAGE, merge_of(cfg), batch_size)

    @torch.no_grad()
    def forward(self, batched_inputs):
        """As `ATSS.forward` in evaluation mode, for images that have not been resized."""
        return [{"instances": self.detect(x)} for x in batched_inputs]

    def detect(self, x):
        """Return the `Instances` of an image, given as its dict."""
        image = x["image"].permute(1, 2, 0).cpu().numpy()
        height, width = size = image.shape[:2]
        result_size = x.get("height", height), x.get("width", width)
        if max(size) <= self.size:
            return self.detect_in([image], result_size)[0]
        tiles, found = tiles_of(*size, self.size, self.overlap), []
        while batch := list(islice(tiles, self.batch_size)):
            instances = self.detect_in([image[t.y1 : t.y2, t.x1 : t.x2] for t in batch])
            found += [in_image(*pair, size, self.overlap * self.size) for pair in zip(instances, batch, strict=True)]
        if self.whole:
            (instances,) = self.detect_in([image])
            whole = Detections(instances.pred_boxes.tensor, instances.scores, instances.pred_classes)
            if EXPERIMENT["whole"] == "large":
                b = whole.boxes
                keep = (b[:, 2:] - b[:, :2]).amax(1) > self.overlap * self.size
                whole = Detections(*(v[keep] for v in whole))
            found.append((whole, torch.zeros_like(whole.scores, dtype=torch.bool)))
        cut = torch.cat([c for _, c in found])
        merged = Detections(*(torch.cat(values) for values in zip(*(f for f, _ in found), strict=True)))
        if EXPERIMENT["cover"]:
            a, b = merged.boxes[cut], merged.boxes[~cut]
            lt = torch.max(a[:, None, :2], b[None, :, :2])
            rb = torch.min(a[:, None, 2:], b[None, :, 2:])
            inter = (rb - lt).clamp(min=0).prod(2) / (a[:, 2:] - a[:, :2]).prod(1)[:, None]
            inter = inter * (merged.classes[cut][:, None] == merged.classes[~cut][None])
            drop = (inter > EXPERIMENT["cover"]).any(1) if len(b) else torch.zeros(len(a), dtype=torch.bool)
            keep = ~cut
            keep[cut.nonzero()[:, 0]] = ~drop
            merged = Detections(*(v[keep] for v in merged))
        return self.model.to_instances(self.merge(*merged), size, result_size)

    def detect_in(self, parts, size=None):
        """Return the `Instances` of images (H, W, 3), in their own pixels or in those of an image of `size`."""
        batch = []
        for part in parts:
            height, width = size or part.shape[:2]
            resized = part if self.resize is None else self.resize.get_transform(part).apply_image(part)
            tensor = torch.as_tensor(np.ascontiguousarray(resized.transpose(2, 0, 1)))
            batch.append({"image": tensor, "height": height, "width": width})
        return [output["instances"] for output in self.model(batch)]


def in_image(instances, tile, size, overlap):
    boxes = instances.pred_boxes.tensor
    height, width = size
    t = 2.0
    touch = torch.stack(
        [
            (boxes[:, 0] <= t) & (tile.x1 > 0),
            (boxes[:, 1] <= t) & (tile.y1 > 0),
            (boxes[:, 2] >= tile.x2 - tile.x1 - t) & (tile.x2 < width),
            (boxes[:, 3] >= tile.y2 - tile.y1 - t) & (tile.y2 < height),
        ]
    ).any(0)
    boxes = boxes + boxes.new_tensor([tile.x1, tile.y1, tile.x1, tile.y1])
    centers = (boxes[:, :2] + boxes[:, 2:]) / 2
    margin = MARGIN * overlap
    low = boxes.new_tensor(tile.core[:2]) - margin
    high = boxes.new_tensor(tile.core[2:]) + margin
    keep = torch.ones_like(touch)
    if EXPERIMENT["core"]:
        keep = ((centers >= low) & (centers <= high)).all(1)
    if EXPERIMENT["touch"] is not None:
        # drop cut boxes that the neighbour shows
        out = (centers < boxes.new_tensor(tile.core[:2])) | (centers > boxes.new_tensor(tile.core[2:]))
        b = instances.pred_boxes.tensor
        w, h = tile.x2 - tile.x1, tile.y2 - tile.y1
        t = EXPERIMENT["touch"]
        tx = ((b[:, 0] <= t) & (centers[:, 0] < tile.core[0])) | ((b[:, 2] >= w - t) & (centers[:, 0] > tile.core[2]))
        ty = ((b[:, 1] <= t) & (centers[:, 1] < tile.core[1])) | ((b[:, 3] >= h - t) & (centers[:, 1] > tile.core[3]))
        keep &= ~(tx | ty)
    return Detections(boxes[keep], instances.scores[keep], instances.pred_classes[keep]), touch[keep]
