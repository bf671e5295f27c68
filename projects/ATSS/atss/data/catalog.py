"""Registers datasets with Detectron2, and reads each of them once."""

import atexit
import gc
import json
import logging
import os
import shutil
import tempfile
from contextlib import contextmanager
from functools import cache, partial

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils import comm
from detectron2.utils.logger import log_first_n

from ..errors import InputError, first_line
from .coco import classes_of, coco_source, dicts_of
from .entries import sound_content
from .folders import find_dataset, folder_name
from .inspection import Table, missing_images
from .problems import refuse_errors
from .sources import Source

_sources = {}
# Dicts that the next `read_dataset` returns: reading large datasets takes long.
_kept = {}


def register_coco_format(name, annotation_file, image_folder):
    """Register a COCO-format dataset with Detectron2; its files are read when it is used.

    Args:
        name: name for DATASETS.TRAIN and DATASETS.TEST; a dataset with this name is replaced.
        annotation_file: path of a json file in COCO's format for object detection.
        image_folder: path that each `file_name` is relative to.
    """
    register(name, coco_source(annotation_file, image_folder))
    MetadataCatalog.get(name).set(json_file=annotation_file, image_root=image_folder)


def register_folder(folder):
    """Register the splits of the dataset in a folder as `<name of the folder>_<split>`; they are read when used.

    Returns a dict from split to name. Raises InputError if the folder has no dataset of a known layout.
    """
    dataset = find_dataset(folder)
    names = {split: f"{dataset.name}_{split}" for split in dataset.splits}
    for split, source in dataset.splits.items():
        register(names[split], source)
    message = f"{folder}: {dataset.layout}, with {', '.join(dataset.splits)}."
    log_first_n(logging.INFO, message, name="atss.data", key="message")
    return names


def register_folder_unseen(folder, names):
    """Register those of `names` that begin with the folder's name, without access to the folder until they are used."""
    prefix = f"{folder_name(folder)}_"
    for name in names:
        if name.startswith(prefix):
            register(name, Source(folder, partial(_read_split, folder, name.removeprefix(prefix)), folder))


def _read_split(folder, split):
    splits = find_dataset(folder).splits
    if split not in splits:
        raise InputError(f"{folder}: has no split {split}; it has {', '.join(splits)}")
    return splits[split].read()


def register(name, source):
    """Register a `Source` with Detectron2; a dataset with this name is replaced."""
    if name in DatasetCatalog.list():
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
    _kept.pop(name, None)
    _sources[name] = source
    DatasetCatalog.register(name, lambda: load(name, source))
    MetadataCatalog.get(name).set(evaluator_type="coco")


def source_of(name):
    """The `Source` of a registered dataset; None if the dataset is not read from files of a known format."""
    metadata = MetadataCatalog.get(name)
    if name not in _sources and os.path.isfile(metadata.get("json_file", "")):
        return coco_source(metadata.json_file, metadata.get("image_root", ""))
    return _sources.get(name)


def load(name, source):
    """Dicts of a dataset in Detectron2's standard form, after checks that it can be used.

    The names of the classes, and a json file in COCO format for evaluators, are stored in the dataset's metadata.
    Raises InputError if annotation files are missing or malformed, or images are missing.
    """
    with no_garbage_collection():
        content = source.read()
        coco, problems = sound_content(content.coco)
        refuse_errors(source, content.problems + problems)
        dicts = dicts_of(coco, content.image_folder)
    classes = classes_of(coco)
    refuse_errors(source, missing_images([record["file_name"] for record in dicts]))
    for problem in content.problems:
        warn(problem._replace(where=name))
    MetadataCatalog.get(name).set(
        thing_classes=list(classes.values()),
        thing_dataset_id_to_contiguous_id={class_id: number for number, class_id in enumerate(classes)},
        image_root=content.image_folder,
        json_file=content.file or written(name, content.coco),
    )
    return dicts


@contextmanager
def no_garbage_collection():
    """Suspend garbage collection, which takes as long as reading millions of entries."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def written(name, coco):
    """Write a content to a json file that is removed when the process ends; return its path."""
    path = os.path.join(temporary_folder(), f"{name}.json")
    with open(path, "w", encoding="utf-8") as file:
        json.dump(coco, file)
    return path


@cache
def temporary_folder():
    folder = tempfile.mkdtemp(prefix="atss-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def read_dataset(name, keep=False):
    """Dicts of a registered dataset, in Detectron2's standard form; with `keep` the next call returns the same dicts.

    Raises InputError if the dataset's files are missing or malformed.
    """
    dicts = _kept.pop(name, None)
    if dicts is None:
        try:
            dicts = DatasetCatalog.get(name)
        except FileNotFoundError as error:
            raise InputError(
                f"{error.filename}: file of dataset {name} is missing; set DETECTRON2_DATASETS to the folder of your "
                "datasets"
            ) from error
        except (OSError, ValueError, KeyError, AssertionError, TypeError) as error:
            raise InputError(f"dataset {name} cannot be read: {first_line(error)}") from error
    if keep:
        _kept[name] = dicts
    return dicts


def table_of(name, dicts):
    """The `Table` of a registered dataset that has been read."""
    return Table.of(name, dicts, MetadataCatalog.get(name).get("thing_classes", ()))


def warn(problem):
    """Log a warning once per process; notes are left to `atss check`."""
    if problem.severity == "warning" and comm.is_main_process():
        log_first_n(logging.WARNING, problem.line(), name="atss.data", key="message")
