#!/usr/bin/env python
"""Train and evaluate ATSS, with Detectron2's arguments. See README.md."""

import logging
import os

import atss  # noqa: F401  (before Detectron2, whose deprecation warnings it silences)

# isort: split
import torch
from detectron2.engine import default_argument_parser, default_setup, launch
from detectron2.evaluation import verify_results
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger

from atss.checkpoints import Checkpointer, check_weights
from atss.data import check_data
from atss.errors import InputError, one_line_errors
from atss.logs import log_into
from atss.report import write_report
from atss.run import load_config
from atss.trainer import Trainer

logger = logging.getLogger("atss.train_net")


def main(args):
    setup_logger(name="atss", distributed_rank=comm.get_rank())
    with one_line_errors():
        # Everything that can be wrong with the input shows before anything is written.
        cfg = load_config(args.config_file, args.opts)
        check_data(cfg, train=not args.eval_only)
        return evaluate(cfg, args) if args.eval_only else train(cfg, args)


def train(cfg, args):
    if not (args.resume and os.path.isfile(os.path.join(cfg.OUTPUT_DIR, "last_checkpoint"))):
        check_weights(cfg)
    default_setup(cfg, args)
    log_into(cfg.OUTPUT_DIR)
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=args.resume)
    results = trainer.train()
    if comm.is_main_process():
        report(cfg.OUTPUT_DIR)
    return results


def evaluate(cfg, args):
    model = Trainer.build_model(cfg)
    checkpointer = Checkpointer(model, cfg.OUTPUT_DIR)
    if not (cfg.MODEL.WEIGHTS or (args.resume and checkpointer.has_checkpoint())):
        raise InputError("--eval-only: name the checkpoint to evaluate with MODEL.WEIGHTS")
    checkpointer.resume_or_load(cfg.MODEL.WEIGHTS, resume=args.resume)
    default_setup(cfg, args)
    log_into(cfg.OUTPUT_DIR)
    results = Trainer.test(cfg, model)
    if comm.is_main_process():
        report(cfg.OUTPUT_DIR)
        verify_results(cfg, results)
    return results


def report(output_dir):
    """Write report.html; a run is not lost where that fails."""
    try:
        logger.info("The run's story: %s", write_report(output_dir))
    except Exception:
        logger.exception("report.html could not be written; tools/report.py tries again")


if __name__ == "__main__":
    args = default_argument_parser().parse_args()
    with one_line_errors():
        if args.num_gpus > max(1, torch.cuda.device_count()):
            raise InputError(f"--num-gpus {args.num_gpus}: this machine has {torch.cuda.device_count()} GPUs")
    launch(main, args.num_gpus, args.num_machines, args.machine_rank, args.dist_url, args=(args,))
