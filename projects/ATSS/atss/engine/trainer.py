"""Detectron2's DefaultTrainer with this project's data, optimizers, evaluation, checkpoints and progress."""

import logging
import os
import sys
import weakref

from detectron2.engine import DefaultTrainer, TrainerBase, hooks
from detectron2.utils import comm
from detectron2.utils.events import JSONWriter, TensorboardXWriter

from ..checkpoints import Checkpointer, is_pretrained
from ..config.yaml_file import flat
from ..data import read_dataset, test_loader, train_loader, validation_loader
from ..evaluation import build_coco_evaluator, for_testing, validation_losses
from ..modeling import for_inference
from ..utils.comm import agreeing, parallel
from ..utils.randomness import seed_all
from .hooks import EndOfTraining, KeepBest, PredictionImages, StopOnSignal, WeightAverage
from .loggers import RunLogger
from .optimizers import build_optimizer
from .progress import LogLine, TerminalLine
from .training_step import TrainingStep

logger = logging.getLogger(__name__)

# Images that VIS_PERIOD draws.
NUM_IMAGES = 4


class Trainer(DefaultTrainer):
    """Train and evaluate a config's model, in one process or several.

    An iteration depends only on the weights, the seed and its number, so a resumed run repeats what the interrupted
    one would have done.
    """

    build_train_loader = staticmethod(train_loader)
    build_test_loader = staticmethod(test_loader)
    build_evaluator = staticmethod(build_coco_evaluator)
    build_optimizer = staticmethod(build_optimizer)

    def __init__(self, cfg):
        TrainerBase.__init__(self)
        self.cfg = cfg = self.auto_scale_workers(cfg, comm.get_world_size())
        self.start_iter, self.max_iter = 0, cfg.SOLVER.MAX_ITER
        # Evaluations are compared, and the progress shown, by the AP on the first dataset.
        self.metric = f"{cfg.DATASETS.TEST[0]}/bbox/AP" if len(cfg.DATASETS.TEST) > 1 else "bbox/AP"
        model = self.build_model(cfg)
        optimizer = self.build_optimizer(cfg, model)
        self.loader = self.build_train_loader(cfg)
        self.stop_on_signal, self.loggers = StopOnSignal(), []  # the main process logs
        self._trainer = TrainingStep(cfg, parallel(model), self.loader, optimizer, self.stop_on_signal.received)
        self.scheduler = self.build_lr_scheduler(cfg, optimizer)
        self.checkpointer = Checkpointer(
            model, cfg.OUTPUT_DIR, needed=is_pretrained, remake_head=cfg.MODEL.ATSS.REMAKE_HEAD,
            allow_pickle=cfg.MODEL.ATSS.ALLOW_PICKLE, trainer=weakref.proxy(self),
        )  # fmt: skip
        self.register_hooks(self.build_hooks())

    def build_hooks(self):
        cfg, model = self.cfg, unwrapped(self.model)
        average = WeightAverage(model, cfg.SOLVER.EMA_DECAY) if cfg.SOLVER.EMA_DECAY else None
        self.evaluated_model = average.model if average else model
        keep = self.checkpointer, self.metric, cfg.TEST.KEEP_BEST, cfg.SOLVER.EARLY_STOP
        evaluation = KeepBest(cfg.TEST.EVAL_PERIOD, self.evaluate, *keep)
        default = super().build_hooks()
        writers = [hook for hook in default if isinstance(hook, hooks.PeriodicWriter)]
        others = [hook for hook in default if not isinstance(hook, (hooks.EvalHook, hooks.PeriodicWriter))]
        built = [average, *others, self.stop_on_signal, evaluation]
        if cfg.VIS_PERIOD and cfg.DATASETS.TEST and comm.is_main_process():
            records = read_dataset(cfg.DATASETS.TEST[0])[:NUM_IMAGES]
            built.append(PredictionImages(cfg, self.evaluated_model, records))
        if comm.is_main_process() and sys.stderr.isatty():
            terminal = TerminalLine(self.max_iter, self.metric, cfg.SOLVER.IMS_PER_BATCH)
            writers.append(hooks.PeriodicWriter([terminal], period=1))
        return built + writers  # writers come last, so that they write what the other hooks measure

    def build_writers(self):
        log_line, folder = LogLine(self.max_iter, self.metric, self.cfg.SOLVER.IMS_PER_BATCH), self.cfg.OUTPUT_DIR
        self.loggers = [RunLogger(name, folder, dict(flat(self.cfg))) for name in self.cfg.OUTPUT.LOGGERS]
        return [log_line, JSONWriter(os.path.join(folder, "metrics.json")), TensorboardXWriter(folder), *self.loggers]

    def evaluate(self):
        self._last_eval_results = self.test(self.cfg, self.evaluated_model)
        return self._last_eval_results

    def resume_or_load(self, resume=True):
        """Resume from the last whole checkpoint in OUTPUT_DIR if `resume` is True and there is one, else load weights.

        Raises an InputError if a checkpoint cannot be used.
        """
        self.checkpointer.resume_or_load(self.cfg.MODEL.WEIGHTS, resume=resume)
        if self.checkpointer.resumed:
            # The checkpoint contains the number of the iteration that was done last.
            self.loader.first = self.start_iter = self.iter + 1
        if not resume and comm.is_main_process():
            self._trainer.skipped_batches.forget_out_of_memory()

    def train(self, at_end=lambda: None):
        """Train; return the results of the last evaluation, None if there was none.

        `finished` becomes False if the run ends early and is meant to be resumed. Otherwise the main process calls
        `at_end`, and passes the file whose path it returns, such as a report, on to the loggers.

        Raises:
            InputError: a logger cannot begin.
        """
        self.finished, status, file = True, "failed", None
        try:
            with agreeing():
                for run in self.loggers:
                    run.start(resumed=self.start_iter > 0)
            self._train()
            if self.finished and comm.is_main_process():
                file = at_end()
            status = "finished" if self.finished else "stopped"
        except KeyboardInterrupt:
            status = "stopped"
            raise
        finally:
            for run in self.loggers:
                run.finish(status, file)
        return getattr(self, "_last_eval_results", None)

    def _train(self):
        try:
            with self.stop_on_signal:
                super().train()
        except EndOfTraining as end:
            logger.info(str(end))

    def before_step(self):
        seed_all(self.loader.seed, self.iter, comm.get_rank())
        super().before_step()

    # Detectron2 0.6 does not save the optimizer; its main branch does, under the same key.
    def state_dict(self):
        return {**super().state_dict(), "_trainer": self._trainer.state_dict(), "seed": self.loader.seed}

    def load_state_dict(self, state_dict):
        super().load_state_dict(state_dict)
        self._trainer.load_state_dict(state_dict["_trainer"])
        self.loader.seed = state_dict.get("seed", self.loader.seed)

    @classmethod
    def test(cls, cfg, model, evaluators=None):
        model = for_inference(unwrapped(model))
        results = super().test(cfg, for_testing(cfg, model), evaluators)
        if cfg.TEST.VALIDATION_LOSS:
            for name in cfg.DATASETS.TEST:
                losses = validation_losses(model, validation_loader(cfg, name))
                (results if len(cfg.DATASETS.TEST) == 1 else results[name])["validation"] = losses
        return results


def unwrapped(model):
    """Return the model inside DistributedDataParallel."""
    return getattr(model, "module", model)
