"""A trained model for single pictures."""

import torch
from detectron2.data import transforms as T
from detectron2.modeling import build_model

from .checkpoints import Checkpointer
from .errors import InputError


class Predictor:
    """Loads the model of a config and finds the objects of a picture.

    Args:
        cfg: MODEL.WEIGHTS names the checkpoint, INPUT.*_SIZE_TEST the size that pictures are brought to.

    Raises:
        InputError: the checkpoint is missing, damaged or of another model.
    """

    def __init__(self, cfg):
        if not cfg.MODEL.WEIGHTS:
            raise InputError("MODEL.WEIGHTS: name the checkpoint to use")
        self.model = build_model(cfg).eval()
        Checkpointer(self.model).load(cfg.MODEL.WEIGHTS)
        self.resize = T.ResizeShortestEdge([cfg.INPUT.MIN_SIZE_TEST] * 2, cfg.INPUT.MAX_SIZE_TEST)
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
        image = torch.as_tensor(resized.astype("float32").transpose(2, 0, 1))
        return self.model([{"image": image, "height": height, "width": width}])[0]["instances"].to("cpu")
