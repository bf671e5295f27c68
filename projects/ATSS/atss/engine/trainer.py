"""Detectron2's DefaultTrainer with this project's data, optimizer, evaluation, checkpoints and signs of progress."""

import logging
import os
import sys
import weakref

import torch
from detectron2.engine import DefaultTrainer, TrainerBase, hooks
from detectron2.solver import build_optimizer
from detectron2.solver.build import get_default_optimizer_params, maybe_add_gradient_clipping
from detectron2.utils import comm
from detectron2.utils.events import JSONWriter, TensorboardXWriter

from ..checkpoints import Checkpointer, is_pretrained
from ..data import read_dataset, test_loader, train_loader, validation_loader
from ..evaluation import MultiScaleTest, build_coco_evaluator, validation_losses
from ..utils.comm import parallel
from ..utils.randomness import seed_all
from .average import WeightAverage
from .best import KeepBest
from .ending import EndOfTraining
from .evaluation import Evaluation
from .notice import Notice, StopOnNotice
from .prediction_images import PredictionImages
from .progress import LogLine, TerminalLine
from .training_step import TrainingStep

logger = logging.getLogger(__name__)

# Images that VIS_PERIOD draws.
NUM_IMAGES = 4


class Trainer(DefaultTrainer):
    """Trains and evaluates as the config says, in one process or several.

    An iteration is a function of the weights, the seed and its number, so that a run that goes on from a checkpoint
    does what it would have done.
    """

    def __init__(self, cfg):
        TrainerBase.__init__(self)
        self.cfg = cfg = self.auto_scale_workers(cfg, comm.get_world_size())
        self.start_iter, self.max_iter = 0, cfg.SOLVER.MAX_ITER
        model = self.build_model(cfg)
        optimizer = self.build_optimizer(cfg, model)
        self.loader = self.build_train_loader(cfg)
        self.notice = Notice()
        self._trainer = TrainingStep(
            parallel(model), self.loader, optimizer,
            mixed_precision=cfg.SOLVER.AMP.ENABLED,
            max_skipped_batches=cfg.SOLVER.MAX_SKIPPED_BATCHES,
            max_unreadable=cfg.DATALOADER.MAX_UNREADABLE,
            folder=os.path.join(cfg.OUTPUT_DIR, "skipped_batches"),
            notice=self.notice,
        )  # fmt: skip
        self.scheduler = self.build_lr_scheduler(cfg, optimizer)
        self.checkpointer = Checkpointer(
            model, cfg.OUTPUT_DIR, needed=is_pretrained, remake_head=cfg.MODEL.ATSS.REMAKE_HEAD,
            allow_pickle=cfg.MODEL.ATSS.ALLOW_PICKLE, trainer=weakref.proxy(self),
        )  # fmt: skip
        self.register_hooks(self.build_hooks())

    def build_hooks(self):
        cfg, model = self.cfg, unwrapped(self.model)
        average = WeightAverage(model, cfg.SOLVER.EMA_DECAY) if cfg.SOLVER.EMA_DECAY else None
        # What is evaluated, drawn and, of a checkpoint, used.
        self.evaluated = average.model if average else self.model
        found = super().build_hooks()
        # All but the evaluation, and the writers come last, so that what the others found is written.
        writers = [hook for hook in found if isinstance(hook, hooks.PeriodicWriter)]
        found = [hook for hook in found if not isinstance(hook, (hooks.EvalHook, hooks.PeriodicWriter))]
        stop = StopOnNotice(self.checkpointer, lambda: self._trainer.notice)
        return [average, *found, stop, *self.evaluation_hooks(), *writers, *self.terminal_hooks()]

    def evaluation_hooks(self):
        cfg = self.cfg
        found = [Evaluation(cfg.TEST.EVAL_PERIOD, self.evaluate)]
        if cfg.TEST.KEEP_BEST or cfg.SOLVER.EARLY_STOP:
            options = metric(cfg), cfg.TEST.KEEP_BEST, cfg.SOLVER.EARLY_STOP
            found.append(KeepBest(self.checkpointer, cfg.TEST.EVAL_PERIOD, *options))
        if cfg.VIS_PERIOD and cfg.DATASETS.TEST and comm.is_main_process():
            records = read_dataset(cfg.DATASETS.TEST[0])[:NUM_IMAGES]
            found.append(PredictionImages.of(cfg, unwrapped(self.evaluated), records))
        return found

    def terminal_hooks(self):
        if not (comm.is_main_process() and sys.stderr.isatty()):
            return []
        return [hooks.PeriodicWriter([TerminalLine(*self.progress())], period=1)]

    def build_writers(self):
        folder = self.cfg.OUTPUT_DIR
        json_file = os.path.join(folder, "metrics.json")
        return [LogLine(*self.progress()), JSONWriter(json_file), TensorboardXWriter(folder)]

    def progress(self):
        return self.max_iter, metric(self.cfg), self.cfg.SOLVER.IMS_PER_BATCH

    def evaluate(self):
        self._last_eval_results = self.test(self.cfg, self.evaluated)
        return self._last_eval_results

    def resume_or_load(self, resume=True):
        """Go on from the last whole checkpoint of OUTPUT_DIR if `resume` is True and there is one, else load weights.

        Raises:
            InputError: a checkpoint cannot be used.
        """
        self.checkpointer.resume_or_load(self.cfg.MODEL.WEIGHTS, resume=resume)
        if self.checkpointer.resumed:
            # The checkpoint has the iteration that was done last.
            self.loader.first = self.start_iter = self.iter + 1
        if not resume and comm.is_main_process():
            self._trainer.forget()

    def train(self):
        """Train; return what the last evaluation gave, None where there was none.

        Returns:
            None, too, where the run was asked to stop: `finished` is False then.
        """
        self.finished = True
        try:
            with self.notice:
                super().train()
        except EndOfTraining as end:
            logger.info(str(end))
            self.finished = end.finished
        return getattr(self, "_last_eval_results", None)

    def before_step(self):
        seed_all(self.loader.seed, self.iter, comm.get_rank())
        super().before_step()

    # Detectron2 0.6 leaves the optimizer out of its checkpoints; its main branch has it, too.
    def state_dict(self):
        return {**super().state_dict(), "_trainer": self._trainer.state_dict(), "seed": self.loader.seed}

    def load_state_dict(self, state_dict):
        super().load_state_dict(state_dict)
        self._trainer.load_state_dict(state_dict["_trainer"])
        self.loader.seed = state_dict.get("seed", self.loader.seed)

    @classmethod
    def build_train_loader(cls, cfg):
        return train_loader(cfg)

    @classmethod
    def build_test_loader(cls, cfg, dataset_name):
        return test_loader(cfg, dataset_name)

    @classmethod
    def build_evaluator(cls, cfg, dataset_name):
        return build_coco_evaluator(cfg, dataset_name)

    @classmethod
    def test(cls, cfg, model, evaluators=None):
        results = super().test(cfg, MultiScaleTest.of(cfg, model) if cfg.TEST.AUG.ENABLED else model, evaluators)
        if cfg.TEST.VALIDATION_LOSS:
            for name in cfg.DATASETS.TEST:
                losses = validation_losses(unwrapped(model), validation_loader(cfg, name))
                (results if len(cfg.DATASETS.TEST) == 1 else results[name])["validation"] = losses
        return results

    @classmethod
    def build_optimizer(cls, cfg, model):
        if cfg.SOLVER.OPTIMIZER == "SGD":
            return build_optimizer(cfg, model)
        params = get_default_optimizer_params(
            model,
            base_lr=cfg.SOLVER.BASE_LR,
            weight_decay=cfg.SOLVER.WEIGHT_DECAY,
            weight_decay_norm=cfg.SOLVER.WEIGHT_DECAY_NORM,
            bias_lr_factor=cfg.SOLVER.BIAS_LR_FACTOR,
            weight_decay_bias=cfg.SOLVER.WEIGHT_DECAY_BIAS,
        )
        return maybe_add_gradient_clipping(cfg, torch.optim.AdamW(params, lr=cfg.SOLVER.BASE_LR, fused=True))


def unwrapped(model):
    """A model without what several processes wrap around it."""
    return getattr(model, "module", model)


def metric(cfg):
    """Name of the figure that evaluations are judged by: AP on the first of the datasets."""
    return f"{cfg.DATASETS.TEST[0]}/bbox/AP" if len(cfg.DATASETS.TEST) > 1 else "bbox/AP"
