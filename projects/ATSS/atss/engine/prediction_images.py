"""Images of predictions for TensorBoard while training goes on."""

import numpy as np
import torch
from detectron2.engine import HookBase
from detectron2.evaluation.evaluator import inference_context
from detectron2.structures import BoxMode
from detectron2.utils.events import get_event_storage

from ..data.image_io import read_image
from ..data.mapper import BoxDatasetMapper
from ..data.resize import EvalResize
from ..utils.drawing import class_colors, draw_boxes, mosaic

# Least score of a box that is drawn.
MIN_SCORE = 0.3


class PredictionImages(HookBase):
    """Now and then draws the objects of some images beside what the model finds there.

    Args:
        model: the model, without a wrapper for several processes.
        records: list of dicts of the images in Detectron2's standard form.
        mapper: brings an image's dict into the form that the model takes.
        class_names: names of the classes.
        period: iterations from one drawing to the next.
    """

    def __init__(self, model, records, mapper, class_names, period):
        self.model = model
        self.records = records
        self.mapper = mapper
        self.class_names = class_names
        self.period = period

    @classmethod
    def of(cls, cfg, model, records):
        """From a config: VIS_PERIOD, and images as large as at testing."""
        mapper = BoxDatasetMapper(cfg, False, augmentations=[EvalResize.of(cfg)])
        return cls(model, records, mapper, cfg.MODEL.ATSS.CLASS_NAMES, cfg.VIS_PERIOD)

    def after_step(self):
        if (self.trainer.iter + 1) % self.period == 0:
            for record in self.records:
                name = f"predictions/{record['image_id']}"
                get_event_storage().put_image(name, torch.from_numpy(self.draw(record).copy()).permute(2, 0, 1))

    @torch.no_grad()
    def draw(self, record):
        """Objects on the left, predictions on the right: (H, W, 3) uint8, RGB."""
        with inference_context(self.model):
            found = self.model([self.mapper(record)])[0]["instances"].to("cpu")
        found = found[found.scores >= MIN_SCORE]

        objects = record.get("annotations", [])
        boxes = [BoxMode.convert(a["bbox"], a["bbox_mode"], BoxMode.XYXY_ABS) for a in objects]
        image, colors = read_image(record["file_name"], "RGB"), class_colors(len(self.class_names))
        sides = (
            (np.array(boxes), [a["category_id"] for a in objects], [""] * len(objects)),
            (
                found.pred_boxes.tensor.numpy(),
                found.pred_classes.tolist(),
                [f" {s:.0%}" for s in found.scores.tolist()],
            ),
        )
        drawn = [
            draw_boxes(image, b, [self.class_names[k] + s for k, s in zip(classes, after, strict=True)],
                       [colors[k] for k in classes])
            for b, classes, after in sides
        ]  # fmt: skip
        return mosaic(drawn, columns=2, titles=["objects", "predictions"])
