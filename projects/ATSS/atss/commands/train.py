"""Train and evaluate ATSS, with Detectron2's arguments."""

import logging

from detectron2.engine import default_argument_parser, default_setup
from detectron2.evaluation import verify_results
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger

from ..checkpoints import Checkpointer, check_weights, newest
from ..config import load_config, parse_with_opts, shipped, wanted_device
from ..data import check_data
from ..engine import Trainer, launch
from ..errors import AgreedError, InputError, one_line_errors
from ..report import write_report
from ..utils.comm import agreeing, from_main

logger = logging.getLogger(__name__)


def get_parser():
    return default_argument_parser()


def main(args):
    args.config_file = shipped.find_config(args.config_file)  # Detectron2 opens it, too
    setup_logger(name="atss", distributed_rank=comm.get_rank())
    with one_line_errors():
        # Check all inputs before anything is written.
        with agreeing():
            cfg = load_config(args.config_file, args.opts)
            check_batch(cfg)
            check_data(cfg, train=not args.eval_only)
        return evaluate(cfg, args) if args.eval_only else train(cfg, args)


def check_batch(cfg):
    """Raise an `InputError` unless the batch can be split evenly among the processes."""
    if cfg.SOLVER.IMS_PER_BATCH < 1 or cfg.SOLVER.IMS_PER_BATCH % comm.get_world_size():
        raise InputError(
            f"SOLVER.IMS_PER_BATCH {cfg.SOLVER.IMS_PER_BATCH}: expected a multiple of the {comm.get_world_size()} "
            "processes"
        )


def set_up(cfg, args):
    """Call Detectron2's `default_setup`, and write the log of this package to log.txt, too."""
    default_setup(cfg, args)
    logging.getLogger("atss").handlers = logging.getLogger("detectron2").handlers.copy()


def train(cfg, args):
    resume = args.resume and from_main(lambda: newest(cfg.OUTPUT_DIR) is not None)
    if not resume:
        check_weights(cfg)
    set_up(cfg, args)
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=args.resume)
    return trainer.train(at_end=lambda: report(cfg.OUTPUT_DIR))


def evaluate(cfg, args):
    model = Trainer.build_model(cfg)
    checkpointer = Checkpointer(model, cfg.OUTPUT_DIR, allow_pickle=cfg.MODEL.ATSS.ALLOW_PICKLE)
    checkpointer.resume_or_load(cfg.MODEL.WEIGHTS, resume=args.resume)
    if not (cfg.MODEL.WEIGHTS or checkpointer.resumed):
        raise AgreedError("--eval-only: name the checkpoint to evaluate with MODEL.WEIGHTS")
    set_up(cfg, args)
    results = Trainer.test(cfg, model)
    if comm.is_main_process():
        report(cfg.OUTPUT_DIR)
        verify_results(cfg, results)
    return results


def report(output_dir):
    """Write report.html and return its path; log the traceback if that fails, because the run itself is complete."""
    try:
        path = write_report(output_dir)
        logger.info("Report of the run: %s", path)
        return path
    except Exception:
        logger.exception("report.html could not be written; `atss report` tries again")


def run(arguments=None):
    args = parse_with_opts(get_parser(), arguments)
    with one_line_errors():
        launch(main, args, lambda: wanted_device(args.config_file, args.opts))
