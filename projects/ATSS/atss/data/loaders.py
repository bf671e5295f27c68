"""Detectron2's data loaders, of datasets that have been checked."""

import logging

from detectron2.data import DatasetCatalog, build_detection_test_loader, build_detection_train_loader
from detectron2.data.build import filter_images_with_only_crowd_annotations
from detectron2.structures import BoxMode

from ..errors import InputError, first_line
from .mapper import PictureMapper
from .resize import EvalResize

logger = logging.getLogger("atss.data")

# What `check_data` has read, until a loader takes it: large datasets are read once.
_checked = {}


def check_data(cfg, train=True):
    """Read the datasets that a run will use, before it writes anything.

    Raises:
        InputError: files that are missing or malformed, or nothing to learn from.
    """
    if train:
        _checked[cfg.DATASETS.TRAIN] = train_dicts(cfg)
    for name in cfg.DATASETS.TEST:
        _checked[name] = read_dataset(name)


def train_loader(cfg):
    """Batches of DATASETS.TRAIN, without end."""
    dicts = _checked.pop(cfg.DATASETS.TRAIN, None) or train_dicts(cfg)
    return build_detection_train_loader(cfg, mapper=PictureMapper(cfg, True), dataset=dicts)


def test_loader(cfg, name):
    """The pictures of dataset `name`, once each; as they are where TEST.AUG resizes them itself."""
    resize = [] if cfg.TEST.AUG.ENABLED else [EvalResize.of(cfg)]
    mapper = PictureMapper(cfg, False, augmentations=resize)
    dicts = _checked.pop(name, None) or read_dataset(name)
    return build_detection_test_loader(dicts, mapper=mapper, num_workers=cfg.DATALOADER.NUM_WORKERS)


def read_dataset(name):
    """Dicts of a registered dataset, in Detectron2's standard form.

    Raises:
        InputError: its files are missing or malformed.
    """
    try:
        return DatasetCatalog.get(name)
    except FileNotFoundError as error:
        raise InputError(
            f"{error.filename}: file of dataset {name} is missing; set DETECTRON2_DATASETS to the folder of your "
            "datasets"
        ) from error
    except (OSError, ValueError, KeyError, AssertionError, TypeError) as error:
        raise InputError(f"dataset {name} cannot be read: {first_line(error)}") from error


def train_dicts(cfg):
    """Dicts of all pictures to train on: boxes without area dropped, counted and reported.

    Raises:
        InputError: a class that the head does not have, or no box at all.
    """
    if not cfg.DATASETS.TRAIN:
        raise InputError("DATASETS.TRAIN: name a dataset to train on")
    dicts = [record for name in cfg.DATASETS.TRAIN for record in read_dataset(name)]
    num_boxes = num_dropped = 0
    for record in dicts:
        annotations = record.get("annotations", [])
        record["annotations"] = kept = [annotation for annotation in annotations if has_area(annotation)]
        num_boxes, num_dropped = num_boxes + len(kept), num_dropped + len(annotations) - len(kept)
        for annotation in kept:
            if not 0 <= annotation["category_id"] < cfg.MODEL.ATSS.NUM_CLASSES:
                raise InputError(
                    f"{record['file_name']}: an object has class {annotation['category_id']}, but the head has "
                    f"{cfg.MODEL.ATSS.NUM_CLASSES} classes, counted from 0 (MODEL.ATSS.NUM_CLASSES)"
                )
    if num_dropped:
        logger.warning("Dropped %d boxes without area of %d.", num_dropped, num_boxes + num_dropped)
    if not num_boxes:
        raise InputError(f"DATASETS.TRAIN: {', '.join(cfg.DATASETS.TRAIN)} have no box: there is nothing to learn")
    return filter_images_with_only_crowd_annotations(dicts) if cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS else dicts


def has_area(annotation):
    """Whether the box of an annotation in Detectron2's standard form has width and height."""
    x, y, width, height = annotation["bbox"]
    if annotation["bbox_mode"] == BoxMode.XYXY_ABS:
        width, height = width - x, height - y
    return width > 0 and height > 0
