"""Detectron2's DefaultTrainer with this project's data, optimizer, evaluation and checks of checkpoints."""

import weakref

import torch
from detectron2.engine import DefaultTrainer
from detectron2.solver import build_optimizer
from detectron2.solver.build import get_default_optimizer_params, maybe_add_gradient_clipping

from .checkpoints import Checkpointer, is_pretrained
from .data import test_loader, train_loader
from .evaluation import MultiScaleTest, build_coco_evaluator


class Trainer(DefaultTrainer):
    """Trains and evaluates as the config says."""

    def build_hooks(self):
        # DefaultTrainer has just made a checkpointer that keeps what it cannot load to itself.
        self.checkpointer = Checkpointer(
            self.model, self.cfg.OUTPUT_DIR, needed=is_pretrained, trainer=weakref.proxy(self)
        )
        return super().build_hooks()

    # Detectron2 0.6 leaves the optimizer out of its checkpoints; its main branch has these two, too.
    def state_dict(self):
        return {**super().state_dict(), "_trainer": self._trainer.state_dict()}

    def load_state_dict(self, state_dict):
        super().load_state_dict(state_dict)
        self._trainer.load_state_dict(state_dict["_trainer"])

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
        return super().test(cfg, MultiScaleTest.of(cfg, model) if cfg.TEST.AUG.ENABLED else model, evaluators)

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
