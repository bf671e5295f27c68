"""The best checkpoint, and an end to training that no longer helps."""

import logging
import math

from detectron2.engine import HookBase
from detectron2.utils import comm

from .ending import EndOfTraining
from .evaluation import is_due

logger = logging.getLogger(__name__)


class KeepBest(HookBase):
    """After every evaluation saves the checkpoint if none before was better, and counts evaluations since the best.

    Belongs behind the hook that evaluates. Runs in every process; what is best is known to the main one.

    Args:
        checkpointer: saves `model_best.pth`.
        period: iterations from one evaluation to the next.
        metric: name of the figure, the higher the better ("bbox/AP").
        save: whether the best checkpoint is kept.
        patience: evaluations without a better figure after which training ends, 0 for never.
    """

    def __init__(self, checkpointer, period, metric, save=True, patience=0):
        self.checkpointer = checkpointer
        self.period = period
        self.metric = metric
        self.save = save
        self.patience = patience
        self.best = None
        self.best_iter = None
        self.waited = 0

    def before_train(self):
        self._follow(self.trainer.start_iter)

    def after_step(self):
        self._follow(self.trainer.iter + 1)

    def after_train(self):
        if self.trainer.iter + 1 >= self.trainer.max_iter:
            self._look(self.trainer.max_iter)

    def _follow(self, done):
        if is_due(done, self.period, self.trainer.max_iter):
            self._look(done)
            if self.patience and max(comm.all_gather(self.waited)) >= self.patience:
                self._end(done)

    def _look(self, done):
        value = self.trainer.storage.latest().get(self.metric, (math.nan, 0))[0]
        if not comm.is_main_process():
            return
        # Where nothing was found there is no figure: the worst that can be.
        value = -math.inf if math.isnan(value) else value
        if self.best is not None and value <= self.best:
            self.waited += 1
            return
        self.best, self.best_iter, self.waited = value, done - 1, 0
        if self.save:
            self.checkpointer.save("model_best", iteration=self.best_iter)
            logger.info("Best so far: %s %s, in model_best.pth.", self.metric, said(value))

    def _end(self, done):
        if comm.is_main_process():
            self.checkpointer.save("model_final", iteration=done - 1)
        best, best_iter = comm.all_gather((self.best, self.best_iter))[0]
        raise EndOfTraining(
            f"Training ends after {done} of {self.trainer.max_iter} iterations: {self.metric} has not "
            f"become better than {said(best)}, that of iteration {best_iter + 1}, in {self.patience} evaluations "
            "(SOLVER.EARLY_STOP)."
        )

    def state_dict(self):
        return {"best": self.best, "best_iter": self.best_iter, "waited": self.waited}

    def load_state_dict(self, state):
        self.best, self.best_iter, self.waited = state["best"], state["best_iter"], state["waited"]


def said(value):
    return f"{value:.3f}" if math.isfinite(value) else "of nothing found"
