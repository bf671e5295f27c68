"""Images a second that one worker loads and augments, beside Detectron2's DatasetMapper, alternating in one process.

    DETECTRON2_DATASETS=... python benchmarks/loading.py           # the images of DATASETS.TRAIN
    python benchmarks/loading.py --generate 50                     # generated images of 640x480
    python benchmarks/loading.py --generate 50 --augmentations     # each of INPUT.AUGMENTATIONS beside none

Medians of all rounds, by stage, and the ratio to the first line. A worker has one thread; what is counted is the time
that the processor spends for it, so that other programs on the machine and waiting for the disk are left out. A mosaic
counts to the last stage.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from statistics import median

import atss  # before Detectron2, whose deprecation warnings it silences

# isort: split
import cv2
import numpy as np
import torch
from detectron2.data import DatasetMapper, detection_utils
from detectron2.structures import BoxMode
from PIL import Image

import atss.data.mapper
from atss.config import load_config, parse_with_opts
from atss.data.augmentations.mapper import AugmentedMapper
from atss.data.augmentations.registry import AUGMENTATIONS
from atss.data.loaders import train_dicts
from atss.data.mapper import BoxDatasetMapper
from atss.data.pixels import RESIZE_BACKENDS
from atss.errors import one_line_errors

CONFIG = Path(__file__).parent.parent / "configs/atss_R_50_FPN_1x.yaml"
WITHOUT_DATASETS = ("DATASETS.TRAIN", "()", "DATASETS.TEST", "()", "MODEL.ATSS.NUM_CLASSES", "1")
STAGES = ("read", "augment", "to tensors")
COMBINATIONS = {
    **{name: [name] for name in AUGMENTATIONS},
    "color and scale jitter": ["color_jitter", "scale_jitter"],
    "all": list(AUGMENTATIONS),
}


class Contender:
    """A mapper of dicts, the seconds of whose stages are counted.

    Args:
        mapper: Detectron2's DatasetMapper or a subclass.
        module, reader: where the mapper finds the function that reads an image, and its name.
    """

    def __init__(self, mapper, module, reader):
        self.mapper, self.module, self.reader = mapper, module, reader
        self.seconds = {}
        mapper.augmentations = self._counted("augment", mapper.augmentations)

    def run(self, records, seed):
        """Map all records; return milliseconds per image by stage."""
        np.random.seed(seed)
        self.seconds = {"read": 0.0, "augment": 0.0}
        read = getattr(self.module, self.reader)
        setattr(self.module, self.reader, self._counted("read", read))
        try:
            begin = time.process_time()
            for record in records:
                self.mapper(record)
            total = time.process_time() - begin
        finally:
            setattr(self.module, self.reader, read)
        stages = {**self.seconds, "to tensors": total - sum(self.seconds.values()), "total": total}
        return {stage: 1e3 * seconds / len(records) for stage, seconds in stages.items()}

    def _counted(self, stage, function):
        def call(*args, **kwargs):
            begin = time.process_time()
            try:
                return function(*args, **kwargs)
            finally:
                self.seconds[stage] += time.process_time() - begin

        return call


def contenders(cfg):
    """Detectron2's mapper and ours with each of RESIZE_BACKENDS, by name."""
    made = {"Detectron2": Contender(DatasetMapper(cfg, True), detection_utils, "read_image")}
    for backend in RESIZE_BACKENDS:
        mapper = BoxDatasetMapper(changed(cfg, RESIZE_BACKEND_TRAIN=backend), True)
        made[backend] = Contender(mapper, atss.data.mapper, "read_pixels")
    return made


def augmented_contenders(cfg, records):
    """Our mapper without augmentations, and with each of COMBINATIONS, by name."""
    made = {"none": Contender(BoxDatasetMapper(cfg, True), atss.data.mapper, "read_pixels")}
    for name, entries in COMBINATIONS.items():
        mapper = AugmentedMapper(changed(cfg, AUGMENTATIONS=entries), True)
        mapper.dicts = records
        made[name] = Contender(mapper, atss.data.mapper, "read_pixels")
    return made


def changed(cfg, **values):
    """A copy of a config with other values in INPUT."""
    cfg = cfg.clone()
    cfg.defrost()
    cfg.INPUT.update(values)
    return cfg


def generate(folder, number, seed=0):
    """Write photograph-like JPEG files of 640x480 into a folder; return dicts with seven objects each."""
    random, records = np.random.default_rng(seed), []
    for index in range(number):
        blotches, grain = random.integers(0, 256, (12, 16, 3), np.uint8), random.normal(0, 12, (480, 640, 3))
        image = cv2.resize(blotches, (640, 480), interpolation=cv2.INTER_CUBIC) + grain
        name = str(Path(folder, f"{index}.jpg"))
        Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(name, quality=90)
        corners = random.uniform(0, 300, (7, 2))
        boxes = np.concatenate([corners, random.uniform(20, 180, (7, 2))], axis=1).round(2).tolist()
        objects = [{"bbox": box, "bbox_mode": BoxMode.XYWH_ABS, "category_id": 0} for box in boxes]
        records.append({"file_name": name, "width": 640, "height": 480, "annotations": objects})
    return records


def measure(mappers, records, rounds):
    """Medians in milliseconds per image: dict by name of the mapper, of dicts by stage."""
    for mapper in mappers.values():
        mapper.run(records[:5], seed=0)
    results = {name: [] for name in mappers}
    for seed in range(rounds):
        for name, mapper in mappers.items():
            results[name].append(mapper.run(records, seed))
    return {name: {stage: median(r[stage] for r in runs) for stage in runs[0]} for name, runs in results.items()}


def show(results):
    """Print medians as a table."""
    columns = [*STAGES, "total", "images/s", "ratio"]
    print(f"{'ms per image':>22}" + "".join(f"{column:>12}" for column in columns))
    first = next(iter(results.values()))["total"]
    for name, by_stage in results.items():
        total = by_stage["total"]
        values = [*(by_stage[stage] for stage in STAGES), total, 1e3 / total, first / total]
        print(f"{name:>22}" + "".join(f"{value:12.2f}" for value in values))


def main(args):
    with tempfile.TemporaryDirectory() as folder:
        opts = [*args.opts, "MODEL.DEVICE", "cpu", *(WITHOUT_DATASETS if args.generate else ())]
        cfg = load_config(args.config_file, opts)
        records = generate(folder, args.generate) if args.generate else train_dicts(cfg)[: args.images]
        print(f"{len(records)} images, {args.rounds} rounds, torch {torch.__version__}")
        mappers = augmented_contenders(cfg, records) if args.augmentations else contenders(cfg)
        results = measure(mappers, records, args.rounds)
    show(results)
    if args.json:
        Path(args.json).write_text(json.dumps({"images": len(records), **vars(args), "results": results}, indent=1))


def get_parser():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config-file", default=str(CONFIG), metavar="FILE")
    parser.add_argument("--images", type=int, default=100, help="maximum number of images of DATASETS.TRAIN")
    parser.add_argument("--generate", type=int, default=0, metavar="N", help="N generated images instead")
    parser.add_argument("--augmentations", action="store_true", help="compare INPUT.AUGMENTATIONS instead")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", metavar="FILE", help="write the medians")
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="config keys and values")
    return parser


if __name__ == "__main__":
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    with one_line_errors():
        main(parse_with_opts(get_parser()))
