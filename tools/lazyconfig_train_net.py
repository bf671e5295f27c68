#!/usr/bin/env python
"""Train and evaluate what a LazyConfig describes, with Detectron2's arguments:

    python tools/lazyconfig_train_net.py --config-file configs/lazy/atss_R_50_FPN_1x.py train.max_iter=100

A config of your own is a Python file that takes another one's names and changes them. For a dataset in COCO's format:

    from .atss_R_50_FPN_1x import dataloader, lr_multiplier, model, optimizer, train

    dataloader.register = [["cells", "cells.json", "pictures"], ["cells_val", "cells_val.json", "pictures"]]
    dataloader.train.dataset.names = "cells"
    dataloader.test.dataset.names = "cells_val"
    model.head.num_classes = 3
"""

import atss  # noqa: F401  (before Detectron2, whose deprecation warnings it silences)

# isort: split
from detectron2.engine import (
    AMPTrainer,
    SimpleTrainer,
    default_argument_parser,
    default_setup,
    default_writers,
    hooks,
)
from detectron2.evaluation import inference_on_dataset, print_csv_format
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger

from atss.checkpoints import Checkpointer, is_pretrained, newest
from atss.errors import InputError, one_line_errors
from atss.lazy import build, build_loader, build_with_weights, load_lazy_config, read_data, wanted_device
from atss.logs import log_into
from atss.processes import agreeing, from_main, launch, parallel


def main(args):
    setup_logger(name="atss", distributed_rank=comm.get_rank())
    with one_line_errors():
        # Everything that can be wrong with the input shows before anything is written.
        with agreeing():
            cfg = load_lazy_config(args.config_file, args.opts)
            test_dicts = read_data(cfg, "test") if cfg.dataloader.get("evaluator") else None
            train_dicts = None if args.eval_only else read_data(cfg, "train")
        resume = args.resume and from_main(lambda: newest(cfg.train.output_dir) is not None)
        if args.eval_only:
            return evaluate(cfg, args, resume, test_dicts)
        return train(cfg, args, resume, train_dicts, test_dicts)


def train(cfg, args, resume, train_dicts, test_dicts):
    weights = {"needed": is_pretrained, "remake_head": cfg.train.get("remake_head", False), **reading(cfg)}
    if not resume:
        build_with_weights(cfg, **weights)
    default_setup(cfg, args)
    log_into(cfg.train.output_dir)
    model = build(cfg, "model").to(cfg.train.device)
    cfg.optimizer.params.model = model
    optimizer = build(cfg, "optimizer")
    loader = build_loader(cfg, "train", train_dicts)
    model = parallel(model, **cfg.train.ddp)
    trainer = (AMPTrainer if cfg.train.amp.enabled else SimpleTrainer)(model, loader, optimizer)
    checkpointer = Checkpointer(model, cfg.train.output_dir, **weights, trainer=trainer)
    is_main = comm.is_main_process()
    trainer.register_hooks(
        [
            hooks.IterationTimer(),
            hooks.LRScheduler(scheduler=build(cfg, "lr_multiplier")),
            hooks.PeriodicCheckpointer(checkpointer, **cfg.train.checkpointer) if is_main else None,
            hooks.EvalHook(cfg.train.eval_period, lambda: test(cfg, model, test_dicts)) if test_dicts else None,
            hooks.PeriodicWriter(default_writers(cfg.train.output_dir, cfg.train.max_iter), cfg.train.log_period)
            if is_main
            else None,
        ]
    )
    checkpointer.resume_or_load(cfg.train.init_checkpoint, resume=resume)
    # A checkpoint knows the iteration that was its last.
    trainer.train(trainer.iter + 1 if resume else 0, cfg.train.max_iter)


def reading(cfg):
    return {"allow_pickle": cfg.train.get("allow_pickle", False)}


def evaluate(cfg, args, resume, test_dicts):
    if not test_dicts:
        raise InputError("--eval-only: the config has no dataloader.evaluator")
    if resume:
        model = build(cfg, "model")
        Checkpointer(model, cfg.train.output_dir).resume_or_load("", resume=True)
    elif cfg.train.init_checkpoint:
        model = build_with_weights(cfg, **reading(cfg))
    else:
        raise InputError("--eval-only: name the checkpoint to evaluate with train.init_checkpoint")
    default_setup(cfg, args)
    log_into(cfg.train.output_dir)
    return test(cfg, model.to(cfg.train.device), test_dicts)


def test(cfg, model, dicts):
    loader = build_loader(cfg, "test", dicts)
    results = inference_on_dataset(model, loader, build(cfg, "dataloader.evaluator"))
    if comm.is_main_process():
        print_csv_format(results)
    return results


if __name__ == "__main__":
    args = default_argument_parser(epilog=__doc__).parse_args()
    with one_line_errors():
        launch(main, args, lambda: wanted_device(args.config_file, args.opts))
