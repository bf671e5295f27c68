"""Time of a training step and of a checkpoint, of this project's trainer and of Detectron2's DefaultTrainer.

    python benchmarks/reliability.py
    python benchmarks/reliability.py --steps 30 --config-file configs/atss_R_50_FPN_1x.yaml DATASETS.FOLDER cells/ ...

Both train the same model from the same weights with the same optimizer, in turns, on the same images in different
orders; the default dataset has images of one size, so all steps cost the same. In addition to Detectron2's, this
project's step seeds the random numbers of the step and of every image, checks the gradient, and exchanges the losses of
all processes. Its checkpoints are flushed to disk and checked for values that are not finite.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import atss  # noqa: F401  (before Detectron2, whose deprecation warnings it silences)

# isort: split
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.data import build_detection_train_loader
from detectron2.engine import DefaultTrainer
from detectron2.utils.events import EventStorage

from atss.config import load_config, parse_with_opts
from atss.data.loaders import train_dicts
from atss.data.mapper import BoxDatasetMapper
from atss.data.workers import number_of_workers
from atss.engine import Trainer
from atss.errors import one_line_errors

STUDY = Path(__file__).parent.parent / "configs/atss_R_10_FPN_study.yaml"
WARMUP = 5


class Plain(DefaultTrainer):
    """Detectron2's trainer and loader, with this project's model, optimizer and images."""

    @classmethod
    def build_train_loader(cls, cfg):
        workers = number_of_workers(cfg.DATALOADER.NUM_WORKERS)
        mapper = BoxDatasetMapper(cfg, True)
        return build_detection_train_loader(cfg, mapper=mapper, dataset=train_dicts(cfg), num_workers=workers)

    @classmethod
    def build_optimizer(cls, cfg, model):
        return Trainer.build_optimizer(cfg, model)

    def build_writers(self):
        return []


def get_parser():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config-file", default=str(STUDY), metavar="FILE")
    parser.add_argument("--steps", type=int, default=300, help="steps per trainer")
    parser.add_argument("--threads", type=int, help="threads of PyTorch")
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="config keys and values")
    return parser


def step(trainer, number):
    """Run one iteration with its hooks; return the seconds that it took."""
    start = time.perf_counter()
    with trainer.storage:
        trainer.iter = number
        trainer.before_step()
        trainer.run_step()
        trainer.after_step()
    return time.perf_counter() - start


def save(trainer):
    start = time.perf_counter()
    trainer.checkpointer.save("model_0000000")
    return time.perf_counter() - start


def main(args):
    if args.threads:
        torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as folder:
        never = ["SOLVER.MAX_ITER", 10**6, "SOLVER.CHECKPOINT_PERIOD", 10**6, "TEST.EVAL_PERIOD", 0]
        cfg = load_config(args.config_file, [*args.opts, "OUTPUT_DIR", folder, "SEED", 1, *never])
        trainers = {"DefaultTrainer": Plain(cfg), "Trainer": Trainer(cfg)}
        plain, ours = trainers.values()
        ours.model.load_state_dict(plain.model.state_dict())
        # Detectron2 0.6 does not save the optimizer.
        plain.checkpointer = DetectionCheckpointer(plain.model, folder, optimizer=plain.optimizer)
        for trainer in trainers.values():
            trainer.max_iter, trainer.storage = cfg.SOLVER.MAX_ITER, EventStorage(0)
            with trainer.storage:
                trainer.before_train()
        seconds = {name: [] for name in trainers}
        for number in range(WARMUP + args.steps):
            # The trainers take turns in being first.
            for name in list(trainers)[:: 1 if number % 2 else -1]:
                seconds[name].append(step(trainers[name], number))
        saving = {name: statistics.median(save(trainer) for _ in range(7)) for name, trainer in trainers.items()}
    step_ms = {name: statistics.median(values[WARMUP:]) * 1e3 for name, values in seconds.items()}
    pairs = zip(seconds["DefaultTrainer"][WARMUP:], seconds["Trainer"][WARMUP:], strict=True)
    difference = statistics.median(ours - theirs for theirs, ours in pairs) * 1e3
    print(f"{Path(args.config_file).name}, batches of {cfg.SOLVER.IMS_PER_BATCH}, {cfg.MODEL.DEVICE}, "
          f"{torch.get_num_threads()} threads, {args.steps} steps per trainer")  # fmt: skip
    for name, value in step_ms.items():
        print(f"{name:>15}: {value:8.2f} ms per step, {saving[name] * 1e3:7.1f} ms per checkpoint")
    print(f"median difference: {difference:+.2f} ms per step, {difference * 100 / step_ms['DefaultTrainer']:+.2f} %")
    extra = (saving["Trainer"] - saving["DefaultTrainer"]) / 5000
    print(f"with a checkpoint every 5,000 steps: {extra * 1e3:+.4f} ms per step")


if __name__ == "__main__":
    with one_line_errors():
        main(parse_with_opts(get_parser()))
