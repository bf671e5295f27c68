"""Evaluations on the way, none of which is lost to an interruption."""

from detectron2.engine import hooks


class Evaluation(hooks.EvalHook):
    """Detectron2's EvalHook, which makes up for an evaluation that was due where training goes on.

    Checkpoints are written before the evaluation of their iteration, so none of them knows what that gave.
    """

    def before_train(self):
        start = self.trainer.start_iter
        if is_due(start, self._period, self.trainer.max_iter):
            self.trainer.iter = self.trainer.storage.iter = start - 1
            self._do_eval()


def is_due(done, period, max_iter):
    """Whether an evaluation follows `done` iterations; the one after the last is made in any case."""
    return period > 0 and 0 < done < max_iter and done % period == 0
