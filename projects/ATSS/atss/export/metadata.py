"""The settings that a program needs to use an exported model; every file format stores them."""

from ..predictor import class_names_of


def describe(cfg, suppressed):
    """A dict of JSON values; `suppressed` is whether the model includes non-maximum suppression."""
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
