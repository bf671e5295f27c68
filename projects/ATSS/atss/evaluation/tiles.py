"""Detection in overlapping tiles of an image, for large images and small objects."""

from itertools import islice

import numpy as np
import torch
from torch import nn

from ..data import EvalResize
from ..data.tiles import tiles_of
from ..modeling.inference import Detections
from .augmentation import MAX_PAIRS, merge_of

# Tiles per batch on a GPU, unless TEST.TILE.BATCH_SIZE says otherwise. A CPU gains little from batches.
GPU_BATCH_SIZE = 8
# Pixels of the image within which a box ends at the border of a tile.
MARGIN = 4
# Share of a part of an object that a box of a larger part covers.
MIN_COVERED = 0.5
# Score of a box, as a share of that of its part: a doubtful box must not take the place of a certain one.
MIN_SCORE = 0.25


class TiledTest(nn.Module):
    """Run a detector on tiles of each image, and on the whole image, and merge the boxes; called like the detector.

    A box that ends at a border of its tile, inside of the image, may be a part of an object; see `without_parts`. An
    image that is no larger than a tile gets exactly the detector's boxes.

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
        height, width = image.shape[:2]
        size = x.get("height", height), x.get("width", width)
        if max(height, width) <= self.size:
            return self.detect_in([image], size)[0]
        tiles, found, cut = tiles_of(height, width, self.size, self.overlap), [], []
        while batch := list(islice(tiles, self.batch_size)):
            instances = self.detect_in([image[tile.y1 : tile.y2, tile.x1 : tile.x2] for tile in batch])
            for tile, of_tile in zip(batch, instances, strict=True):
                boxes = of_tile.pred_boxes.tensor
                cut.append(ends_at_borders(boxes, tile, height, width))
                boxes = boxes + boxes.new_tensor([tile.x1, tile.y1, tile.x1, tile.y1])
                found.append((boxes, of_tile.scores, of_tile.pred_classes))
        if self.whole:
            (of_image,) = self.detect_in([image])
            found.append((of_image.pred_boxes.tensor, of_image.scores, of_image.pred_classes))
            cut.append(torch.zeros_like(of_image.pred_boxes.tensor, dtype=torch.bool))
        found = Detections(*(torch.cat(values) for values in zip(*found, strict=True)))
        found = self.merge(*without_parts(found, torch.cat(cut)))
        return self.model.to_instances(found, (height, width), size)

    def detect_in(self, parts, size=None):
        """Return the `Instances` of parts of an image (H, W, 3), at `size` (height, width) or at their own."""
        batch = []
        for part in parts:
            height, width = size or part.shape[:2]
            resized = part if self.resize is None else self.resize.get_transform(part).apply_image(part)
            tensor = torch.as_tensor(np.ascontiguousarray(resized.transpose(2, 0, 1)))
            batch.append({"image": tensor, "height": height, "width": width})
        return [output["instances"] for output in self.model(batch)]


def ends_at_borders(boxes, tile, height, width):
    """The sides of boxes (D, 4), in pixels of a tile, at borders of the tile inside of the image: (D, 4) bool."""
    sides = boxes.new_tensor([tile.x2 - tile.x1, tile.y2 - tile.y1])
    inside = torch.tensor([tile.x1 > 0, tile.y1 > 0, tile.x2 < width, tile.y2 < height], device=boxes.device)
    return torch.cat([boxes[:, :2] <= MARGIN, boxes[:, 2:] >= sides - MARGIN], dim=1) & inside


def without_parts(found, cut):
    """The `Detections` without parts of objects of which a larger part is found.

    A box that is cut, (D, 4) bool for each side, is dropped if a larger box of the same class covers more than half of
    it, extends further on one of those sides without being cut there, and has at least a quarter of its score.
    """
    index = cut.any(1).nonzero()[:, 0]
    keep, areas = torch.ones_like(found.classes, dtype=torch.bool), (found.boxes[:, 2:] - found.boxes[:, :2]).prod(1)
    for part in index.split(max(1, MAX_PAIRS // max(1, len(areas)))):
        boxes, sides = found.boxes[part, None], cut[part, None] & ~cut
        low, high = boxes[..., :2].maximum(found.boxes[:, :2]), boxes[..., 2:].minimum(found.boxes[:, 2:])
        covers = (high - low).clamp(min=0).prod(2) > MIN_COVERED * areas[part, None]
        extends = (found.boxes[:, :2] < boxes[..., :2]) & sides[..., :2]
        extends |= (found.boxes[:, 2:] > boxes[..., 2:]) & sides[..., 2:]
        is_larger = (areas > areas[part, None]) & (found.classes == found.classes[part, None])
        is_certain = found.scores >= MIN_SCORE * found.scores[part, None]
        keep[part] = ~(covers & extends.any(2) & is_larger & is_certain).any(1)
    return Detections(*(values[keep] for values in found))
