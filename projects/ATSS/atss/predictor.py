"""A trained model for single pictures."""

import numpy as np
import torch
from detectron2.modeling import build_model

from .checkpoints import Checkpointer
from .data import EvalResize
from .errors import InputError
from .evaluation import MultiScaleTest


class Predictor:
    """Loads the model of a config and finds the objects of a picture.

    Args:
        cfg: MODEL.WEIGHTS names the checkpoint, INPUT.*_SIZE_TEST the size that pictures are brought to, or TEST.AUG
            the sizes.

    Raises:
        InputError: the checkpoint is missing, damaged or of another model.
    """

    def __init__(self, cfg):
        if not cfg.MODEL.WEIGHTS:
            raise InputError("MODEL.WEIGHTS: name the checkpoint to use")
        self.model = build_model(cfg).eval()
        Checkpointer(self.model).load(cfg.MODEL.WEIGHTS)
        self.resize = EvalResize.of(cfg)
        if cfg.TEST.AUG.ENABLED:
            self.model, self.resize = MultiScaleTest.of(cfg, self.model), EvalResize(0, 0)
        self.format = cfg.INPUT.FORMAT

    @torch.no_grad()
    def __call__(self, picture):
        """Find the objects of a picture.

        Args:
            picture: (H, W, 3) uint8 array in BGR order.

        Returns:
            `Instances` on the CPU, in pixels of the picture: `pred_boxes`, `scores`, `pred_classes`, best first.
        """
        height, width = picture.shape[:2]
        if self.format == "RGB":
            picture = picture[:, :, ::-1]
        resized = self.resize.get_transform(picture).apply_image(picture)
        image = torch.as_tensor(np.ascontiguousarray(resized.transpose(2, 0, 1)))
        return self.model([{"image": image, "height": height, "width": width}])[0]["instances"].to("cpu")
