"""Register the datasets of a config, and take its classes from them."""

import logging
from collections.abc import Sequence

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog

from ..data import read_dataset, register_coco_format, register_folder, register_folder_unseen
from ..errors import InputError

logger = logging.getLogger(__name__)


def register_datasets(cfg: CfgNode, given: Sequence[str], look: bool) -> None:
    """Register the datasets of DATASETS.REGISTER or DATASETS.FOLDER.

    Args:
        cfg: config; DATASETS.TRAIN and DATASETS.TEST are set to the folder's splits.
        given: keys of the command line, whose values are kept.
        look: False to accept a folder that no longer exists, for inference.

    Raises:
        InputError: an entry or a folder that cannot be used.
    """
    datasets = cfg.DATASETS
    for entry in datasets.REGISTER:
        if not isinstance(entry, (list, tuple)) or [type(part) for part in entry] != [str] * 3:
            raise InputError(f"DATASETS.REGISTER: expected [name, annotation file, image folder], got {entry!r}")
        register_coco_format(*entry)
    if not datasets.FOLDER:
        return
    if datasets.REGISTER:
        raise InputError("DATASETS.FOLDER and DATASETS.REGISTER: give one of them; docs/own_data.md shows both")
    if not look and "DATASETS.FOLDER" not in given:
        register_folder_unseen(datasets.FOLDER, [*datasets.TRAIN, *datasets.TEST])
        return
    names = register_folder(datasets.FOLDER)
    to_test = names.get("val") or names.get("test")
    for key, name in {"TRAIN": names.get("train"), "TEST": to_test}.items():
        # The config.yaml of a run already names the splits that it used.
        filled_in = datasets[key] and set(datasets[key]) <= set(names.values())
        if f"DATASETS.{key}" not in given and not filled_in:
            datasets[key] = (name,) if name else ()
    if not datasets.TRAIN and not datasets.TEST:
        raise InputError(
            f"{datasets.FOLDER}: has no split train, val or test, but {', '.join(names)}; name those to train and to "
            f"test on: DATASETS.TRAIN \"('{next(iter(names.values()))}',)\""
        )
    if not to_test and not datasets.TEST:
        logger.warning(
            "%s has no split val or test: nothing will be evaluated. Move some of its images and their annotations "
            "into a split val, or name another dataset in DATASETS.TEST.", datasets.FOLDER,
        )  # fmt: skip


def settle_classes(cfg: CfgNode) -> None:
    """Set NUM_CLASSES and CLASS_NAMES from the datasets, and check that they agree."""
    known = {name: class_names(name) for name in (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST)}
    atss = cfg.MODEL.ATSS
    if not known:
        if atss.NUM_CLASSES < 1:
            raise InputError("MODEL.ATSS.NUM_CLASSES: give it, or a dataset in DATASETS.TRAIN or DATASETS.TEST")
        return
    (first, names), *others = known.items()
    for other, other_names in others:
        if other_names != names:
            raise InputError(
                f"DATASETS: {first} has the {len(names)} classes {', '.join(names)}, but {other} has the "
                f"{len(other_names)} classes {', '.join(other_names)}; give them the same categories"
            )
    if atss.NUM_CLASSES not in (0, len(names)):
        raise InputError(
            f"MODEL.ATSS.NUM_CLASSES is {atss.NUM_CLASSES}, but dataset {first} has {len(names)} classes; leave the "
            "key out to take the dataset's"
        )
    atss.NUM_CLASSES = len(names)
    atss.CLASS_NAMES = list(names)


def class_names(dataset: str) -> list[str]:
    """Class names of a registered dataset, in the order of the model's outputs.

    Raises:
        InputError: no dataset of that name, or its annotations cannot be read.
    """
    if dataset not in DatasetCatalog.list():
        raise InputError(
            f"DATASETS: there is no dataset named {dataset!r}; register yours with DATASETS.REGISTER "
            "\"[['name','annotations.json','images/']]\""
        )
    if not hasattr(MetadataCatalog.get(dataset), "thing_classes"):
        read_dataset(dataset, keep=True)  # fills in the names
    return list(MetadataCatalog.get(dataset).thing_classes)
