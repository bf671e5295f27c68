"""The loaders of a config, and the check of its datasets."""

from functools import partial

from detectron2.data import DatasetFromList, MapDataset
from detectron2.data.build import filter_images_with_only_crowd_annotations
from detectron2.data.samplers import InferenceSampler
from detectron2.structures import BoxMode
from detectron2.utils import comm
from torch.utils.data import BatchSampler, DataLoader

from ..errors import InputError
from .augmentations.mapper import AugmentedMapper
from .catalog import no_garbage_collection, read_dataset, table_of, warn
from .inspection import inspect, rare_classes
from .mapper import BoxDatasetMapper
from .problems import errors_of
from .resize import EvalResize
from .train_loader import TrainLoader, sampler_of
from .workers import number_of_workers, restarted


def check_data(cfg, train=True):
    """Read the datasets of a run and check them, without opening images; the loaders do not read them again.

    Logs warnings. Raises InputError if files are missing or malformed, or there is nothing to learn from.
    """
    to_learn = cfg.DATASETS.TRAIN if train else ()
    with no_garbage_collection():
        names = dict.fromkeys((*to_learn, *cfg.DATASETS.TEST))
        tables = [table_of(name, read_dataset(name, keep=True)) for name in names]
        problems = inspect(tables, to_learn)
    if cfg.DATALOADER.SAMPLER_TRAIN != "RepeatFactorTrainingSampler":
        problems += rare_classes([table for table in tables if table.name in to_learn])
    for error in errors_of(problems):
        raise InputError(error.line())
    for problem in problems:
        warn(problem)
    if train:
        train_dicts(cfg, keep=True)


def train_loader(cfg):
    """The `TrainLoader` of DATASETS.TRAIN."""
    loading, dicts = cfg.DATALOADER, train_dicts(cfg)
    mapper = AugmentedMapper(cfg, True) if cfg.INPUT.AUGMENTATIONS else BoxDatasetMapper(cfg, True)
    loader = TrainLoader(
        dicts,
        mapper,
        sampler_of(loading.SAMPLER_TRAIN, dicts, loading.REPEAT_THRESHOLD, loading.get("RANDOM_SUBSET_RATIO", 1.0)),
        cfg.SOLVER.IMS_PER_BATCH // comm.get_world_size(),
        group=loading.ASPECT_RATIO_GROUPING,
        num_workers=number_of_workers(loading.NUM_WORKERS),
        seed=cfg.SEED if cfg.SEED >= 0 else comm.shared_random_seed(),
        skip_unreadable=loading.MAX_UNREADABLE > 0,
    )
    if cfg.INPUT.AUGMENTATIONS:
        mapper.dicts = loader.dicts
    return loader


def test_loader(cfg, name):
    """The images of dataset `name`, once each; resized as the model of the config expects them."""
    resize = EvalResize.before_model(cfg)
    # The validation losses use the same images.
    dicts = read_dataset(name, keep=cfg.TEST.VALIDATION_LOSS)
    mapper = BoxDatasetMapper(cfg, False, augmentations=[resize] if resize else [])
    return OnceThrough(dicts, mapper, 1, number_of_workers(cfg.DATALOADER.NUM_WORKERS))


def validation_loader(cfg, name):
    """Batches of the images of dataset `name` with ground truth, once each, with the batch size of training.

    Images without objects are skipped if they are in training; a dataset without any objects has no batches. With
    several processes the last few images are skipped, so that all processes have the same number of batches: the
    losses of a batch are averaged over processes.
    """
    dicts, processes = read_dataset(name), comm.get_world_size()
    if cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS or not any(record.get("annotations") for record in dicts):
        dicts = filter_images_with_only_crowd_annotations(dicts)
    dicts = dicts[: len(dicts) // processes * processes]
    mapper = BoxDatasetMapper(cfg, True, augmentations=[EvalResize.of(cfg)])
    batch_size = max(1, cfg.SOLVER.IMS_PER_BATCH // processes)
    return dicts and OnceThrough(dicts, mapper, batch_size, number_of_workers(cfg.DATALOADER.NUM_WORKERS))


class OnceThrough:
    """This process's share of a dataset's images in order, in batches: lists of dicts. Arguments as `TrainLoader`'s."""

    def __init__(self, dicts, mapper, batch_size, num_workers):
        self.images = MapDataset(DatasetFromList(dicts, copy=False), mapper)
        self.batches = list(BatchSampler(InferenceSampler(len(dicts)), batch_size, drop_last=False))
        self.num_workers = num_workers

    def __len__(self):
        return len(self.batches)

    def __iter__(self):
        loader = partial(DataLoader, self.images, num_workers=self.num_workers, collate_fn=list)
        return restarted(lambda first: loader(batch_sampler=self.batches[first:]))


def train_dicts(cfg, keep=False):
    """Dicts of all images to train on, without boxes without area; `keep` as for `read_dataset`.

    Raises InputError if a class number is too large for the head, or there is no box at all.
    """
    if not cfg.DATASETS.TRAIN:
        raise InputError("DATASETS.TRAIN: name a dataset to train on")
    dicts = [record for name in cfg.DATASETS.TRAIN for record in read_dataset(name, keep)]
    num_boxes = 0
    for record in dicts:
        record["annotations"] = kept = [a for a in record.get("annotations", []) if has_area(a)]
        num_boxes += len(kept)
        for annotation in kept:
            if not 0 <= annotation["category_id"] < cfg.MODEL.ATSS.NUM_CLASSES:
                raise InputError(
                    f"{record['file_name']}: an object has class {annotation['category_id']}, but the head has "
                    f"{cfg.MODEL.ATSS.NUM_CLASSES} classes, counted from 0 (MODEL.ATSS.NUM_CLASSES)"
                )
    if not num_boxes:
        raise InputError(f"DATASETS.TRAIN: {', '.join(cfg.DATASETS.TRAIN)} have no box: there is nothing to learn")
    return filter_images_with_only_crowd_annotations(dicts) if cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS else dicts


def has_area(annotation):
    """Whether the box of an annotation in Detectron2's standard form has width and height."""
    x, y, width, height = annotation["bbox"]
    if annotation["bbox_mode"] == BoxMode.XYXY_ABS:
        width, height = width - x, height - y
    return width > 0 and height > 0
