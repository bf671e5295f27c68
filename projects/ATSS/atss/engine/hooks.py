"""Hooks of the trainer: averaged weights, evaluation, the best checkpoint, early stops and drawn images."""

import copy
import logging
import math
import os
import signal
import threading

import numpy as np
import torch
from detectron2.engine import HookBase, hooks
from detectron2.evaluation.evaluator import inference_context
from detectron2.structures import BoxMode
from detectron2.utils import comm
from detectron2.utils.events import get_event_storage

from ..data.image_io import read_image
from ..data.mapper import BoxDatasetMapper
from ..data.resize import EvalResize
from ..utils.drawing import class_colors, draw_boxes, mosaic
from .launch import STOP_SIGNALS

logger = logging.getLogger(__name__)

# PredictionImages draws detections with at least this score.
MIN_DRAWN_SCORE = 0.3


class EndOfTraining(BaseException):
    """Ends training before its last iteration without an error; its text is the reason."""


class WeightAverage(HookBase):
    """Keep an exponential moving average of a model's weights and buffers, updated after every step.

    The average, `model`, starts as the weights after the first step. Its decay after t steps is (1 + t) / (10 + t), at
    most `decay`, so that it soon forgets the first weights. Checkpoints contain it (see `Checkpointer`).

    Args:
        model (nn.Module): the trained model, without DistributedDataParallel.
        decay (float): below 1.
    """

    def __init__(self, model, decay):
        self.decay, self._trained, self._steps = decay, model, 0
        self.model = copy.deepcopy(model)

    # torch's AveragedModel would wait for the device, to tell it the number of steps.
    @torch.no_grad()
    def after_step(self):
        decay = min(self.decay, (1 + self._steps) / (10 + self._steps)) if self._steps else 0.0
        pairs = list(zip(tensors_of(self.model), tensors_of(self._trained), strict=True))
        averages, weights = zip(*(pair for pair in pairs if pair[0].is_floating_point()), strict=True)
        torch._foreach_lerp_(averages, weights, 1 - decay)
        for ours, theirs in pairs:
            if not ours.is_floating_point():
                ours.copy_(theirs)  # a count, such as batch normalisation's
        self._steps += 1

    def state_dict(self):
        return {"weights": self.model.state_dict(), "steps": self._steps}

    def load_state_dict(self, state):
        self.model.load_state_dict(state["weights"])
        self._steps = state["steps"]


def tensors_of(model):
    return [*model.parameters(), *model.buffers()]


class KeepBest(hooks.EvalHook):
    """Evaluate; keep the best checkpoint, and end training after several evaluations without a better one.

    Checkpoints are written before the evaluation of their iteration; a resumed run makes up for one that it has missed.

    Args:
        eval_period, eval_function: see EvalHook.
        checkpointer (Checkpointer): saves `model_best.pth`, if `save`.
        metric (str): evaluation result to compare, higher is better ("bbox/AP").
        patience (int): evaluations without a better result after which training ends, 0 for never.
    """

    def __init__(self, eval_period, eval_function, checkpointer, metric, save=True, patience=0):
        super().__init__(eval_period, eval_function)
        self.checkpointer, self.metric, self.save, self.patience = checkpointer, metric, save, patience
        self.best, self.best_iter, self.waited = None, None, 0

    def before_train(self):
        start = self.trainer.start_iter
        if self._period > 0 and 0 < start < self.trainer.max_iter and start % self._period == 0:
            self.trainer.iter = self.trainer.storage.iter = start - 1
            self._do_eval()

    def after_train(self):
        # Training that has failed in its last iteration has not reached this number.
        if self.trainer.iter >= self.trainer.max_iter:
            super().after_train()

    def _do_eval(self):
        super()._do_eval()
        if not self.save and not self.patience:
            return
        done = min(self.trainer.iter + 1, self.trainer.max_iter)
        if comm.is_main_process():
            self._compare(done - 1)
        # Only the main process knows the results.
        self.load_state_dict(comm.all_gather(self.state_dict())[0])
        if self.patience and self.waited >= self.patience and done < self.trainer.max_iter:
            self.checkpointer.save("model_final", iteration=done - 1)
            raise EndOfTraining(
                f"Training ends after {done} of {self.trainer.max_iter} iterations: {self.metric} has not become "
                f"better than {self._best_text()}, that of iteration {self.best_iter + 1}, in {self.patience} "
                "evaluations (SOLVER.EARLY_STOP)."
            )

    def _compare(self, iteration):
        value, _ = self.trainer.storage.latest().get(self.metric, (math.nan, iteration))
        value = -math.inf if math.isnan(value) else value  # COCO evaluation without any detection gives NaN
        if self.best is not None and value <= self.best:
            self.waited += 1
            return
        self.best, self.best_iter, self.waited = value, iteration, 0
        if self.save:
            self.checkpointer.save("model_best", iteration=iteration)
            logger.info("Best so far: %s %s, in model_best.pth.", self.metric, self._best_text())

    def _best_text(self):
        return f"{self.best:.3f}" if math.isfinite(self.best) else "without detections"

    def state_dict(self):
        return {"best": self.best, "best_iter": self.best_iter, "waited": self.waited}

    def load_state_dict(self, state):
        self.best, self.best_iter, self.waited = state["best"], state["best_iter"], state["waited"]


class StopOnSignal(HookBase):
    """Write a checkpoint and end training after a step in which a process has received a stop signal.

    Register it in every process, after all hooks that change what a checkpoint contains. As a context manager it
    records the stop signals of this process instead of ending it. In one of several processes, the end of the process
    that launched it counts as a stop signal: nobody would end or restart the processes that are left.
    """

    def __init__(self):
        self._received, self._launcher, self._handlers = None, os.getppid(), {}

    def __enter__(self):
        # Python allows signal handlers in the main thread only.
        if threading.current_thread() is threading.main_thread():
            self._handlers = {number: signal.signal(number, self._record) for number in STOP_SIGNALS}

    def __exit__(self, *error):
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _record(self, number, frame):
        self._received = signal.Signals(number).name

    def received(self):
        """Return the name of the last stop signal of this process, None if there was none."""
        if not self._received and comm.get_world_size() > 1 and os.getppid() != self._launcher:
            self._received = "the end of its launcher"
        return self._received

    def after_step(self):
        trainer = self.trainer
        received, done = trainer._trainer.stop_signal, trainer.iter + 1
        if received and done < trainer.max_iter:
            trainer.checkpointer.save(f"model_{trainer.iter:07d}", iteration=trainer.iter)
            trainer.finished = False
            raise EndOfTraining(
                f"Stopped by {received} after {done} of {trainer.max_iter} iterations; --resume continues training."
            )


class PredictionImages(HookBase):
    """Every VIS_PERIOD iterations, draw the ground truth and the detections of some images for TensorBoard.

    The images are dicts in Detectron2's standard format, and resized as for testing; the model is not wrapped in
    DistributedDataParallel.
    """

    def __init__(self, cfg, model, records):
        self.model, self.records, self.period = model, records, cfg.VIS_PERIOD
        self.class_names = cfg.MODEL.ATSS.CLASS_NAMES
        self._mapper = BoxDatasetMapper(cfg, False, augmentations=[EvalResize.of(cfg)])

    def after_step(self):
        if (self.trainer.iter + 1) % self.period == 0:
            for record in self.records:
                image = torch.from_numpy(self.draw(record).copy()).permute(2, 0, 1)
                get_event_storage().put_image(f"predictions/{record['image_id']}", image)

    @torch.no_grad()
    def draw(self, record):
        """Return the ground truth (left) and the detections (right) of an image: (H, W, 3) uint8, RGB."""
        with inference_context(self.model):
            detections = self.model([self._mapper(record)])[0]["instances"].to("cpu")
        detections = detections[detections.scores >= MIN_DRAWN_SCORE]
        names, colors = self.class_names, class_colors(len(self.class_names))

        image, annotations = read_image(record["file_name"], "RGB"), record.get("annotations", [])
        boxes = [BoxMode.convert(a["bbox"], a["bbox_mode"], BoxMode.XYXY_ABS) for a in annotations]
        classes = [a["category_id"] for a in annotations]
        left = draw_boxes(image, np.array(boxes), [names[k] for k in classes], [colors[k] for k in classes])

        classes, scores = detections.pred_classes.tolist(), detections.scores.tolist()
        labels = [f"{names[k]} {score:.0%}" for k, score in zip(classes, scores, strict=True)]
        right = draw_boxes(image, detections.pred_boxes.tensor.numpy(), labels, [colors[k] for k in classes])
        return mosaic([left, right], columns=2, titles=["ground truth", "detections"])
