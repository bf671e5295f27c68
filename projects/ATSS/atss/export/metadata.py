"""What a program must know besides the model to use it; all file formats hold it."""

from ..predictor import class_names_of


def describe(cfg, suppressed):
    """The settings that go with a model.

    Args:
        cfg: config of the model.
        suppressed: whether non-maximum suppression is in the model.

    Returns:
        dict from str to what json knows.
    """
    return {
        "class_names": class_names_of(cfg),
        "input_format": cfg.INPUT.FORMAT,
        "min_size": cfg.INPUT.MIN_SIZE_TEST,
        "max_size": cfg.INPUT.MAX_SIZE_TEST,
        "resize_like": cfg.INPUT.RESIZE_LIKE,
        "pixel_extent": cfg.MODEL.ATSS.PIXEL_EXTENT,
        "suppressed": suppressed,
        "nms_threshold": cfg.MODEL.ATSS.NMS_THRESH_TEST,
        "max_detections": cfg.TEST.DETECTIONS_PER_IMAGE,
    }
