"""Averaged weights, which often detect better than those of the last step."""

from detectron2.engine import HookBase
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


class WeightAverage(HookBase):
    """Keeps an exponential moving average of a model's weights and statistics, updated after every step.

    The average starts from the first step's weights and, so that these are soon forgotten, grows slow: after t steps
    its decay is (1 + t) / (10 + t), at most `decay`.

    Args:
        model: the model that is trained, without a wrapper for several processes.
        decay: share of the average that a step leaves, below 1.

    Attributes:
        model: a model with the averaged weights.
    """

    def __init__(self, model, decay):
        self.decay = decay
        self.steps = 0
        self._average = AveragedModel(model, multi_avg_fn=self._update, use_buffers=True)
        self._trained = model

    @property
    def model(self):
        return self._average.module

    def _update(self, averaged, current, num_averaged):
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        get_ema_multi_avg_fn(decay)(averaged, current, num_averaged)

    def after_step(self):
        self._average.update_parameters(self._trained)
        self.steps += 1

    # A checkpoint has the average under "ema", in the form of a model's weights, see `Checkpointer`.
    def state_dict(self):
        return {"weights": self.model.state_dict(), "steps": self.steps}

    def load_state_dict(self, state):
        self.model.load_state_dict(state["weights"])
        self.steps = state["steps"]
        self._average.n_averaged.fill_(self.steps)
