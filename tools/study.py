#!/usr/bin/env python
"""Run the tables of the paper's experiments with any base config, dataset and schedule.

    python tools/study.py --table 3 --config-file configs/atss_R_50_FPN_1x.yaml --num-gpus 8

Rows run one after another; started again, the study skips what is done and goes on where it was interrupted.
"""

import argparse
import contextlib
import logging
import shlex
import signal
from pathlib import Path

import atss  # noqa: F401  (before Detectron2, whose deprecation warnings it silences)

# isort: split
import yaml

from atss.config import parse_with_opts
from atss.errors import InputError, one_line_errors
from atss.study.report import write_report
from atss.study.runner import Progress, command, execute, plan
from atss.study.tables import TABLES

TRAIN_NET = Path(__file__).resolve().parent.parent / "train_net.py"


def get_parser():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", type=int, nargs="+", required=True, choices=sorted(TABLES), help="of the paper")
    parser.add_argument("--config-file", required=True, metavar="FILE", help="base config: model, dataset, schedule")
    parser.add_argument("--output", default="output/study", metavar="DIR", help="folder for runs and tables")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1], help="repeat every row with these")
    parser.add_argument("--num-gpus", type=int, default=1)
    parser.add_argument("--dry-run", action="store_true", help="print the configs and commands, run nothing")
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="go over the base config, rows over both; last")
    return parser


def main(args):
    if len(args.opts) % 2:
        raise InputError(f"{' '.join(args.opts)}: keys and values must come in pairs")
    # Every row's config is read before the first runs: a wrong one shows before hours are spent.
    with each_said_once(logging.getLogger("atss.config.load")):
        tables = {
            number: [plan(row, args.seeds, args.config_file, args.opts, args.output) for row in TABLES[number].rows]
            for number in dict.fromkeys(args.table)
        }
    runs = {}
    for run in (run for rows in tables.values() for row in rows for run in row):
        runs.setdefault(run.folder, run)
    if args.dry_run:
        for run in runs.values():
            print(f"# {run.name}, seed {run.seed}")
            print(yaml.safe_dump(run.settings, sort_keys=False), end="")
            print(shlex.join(command(run, TRAIN_NET, args.config_file, args.num_gpus)), end="\n\n")
        return
    done = [run for run in runs.values() if run.result()]
    if done:
        print(f"{len(done)} of {len(runs)} runs are done already.")
    progress = Progress([run for run in runs.values() if not run.result()])
    write_tables(tables, args)
    for run in runs.values():
        if run.result():
            continue
        progress.start(run)
        try:
            execute(run, command(run, TRAIN_NET, args.config_file, args.num_gpus), progress.show)
        except KeyboardInterrupt:
            raise InputError("interrupted; the same command goes on from the last checkpoint") from None
        progress.end(run)
        write_tables(tables, args)
    for number in tables:
        print(Path(args.output, f"table-{number}.md").read_text())


@contextlib.contextmanager
def each_said_once(logger):
    """Keep a message of the logger from coming again: what is said of the base config would be with every row."""
    said = set()

    def is_new(record):
        return record.msg not in said and not said.add(record.msg)

    logger.addFilter(is_new)
    try:
        yield
    finally:
        logger.removeFilter(is_new)


def write_tables(tables, args):
    for number, rows in tables.items():
        results = [{run.seed: run.result() for run in row if run.result()} for row in rows]
        cfg = rows[0][0].cfg
        setting = (
            f"{Path(args.config_file).name} on {', '.join(cfg.DATASETS.TRAIN)}, {cfg.SOLVER.MAX_ITER} iterations of "
            f"{cfg.SOLVER.IMS_PER_BATCH} images, evaluated on {', '.join(cfg.DATASETS.TEST)}, "
            f"seeds {', '.join(map(str, args.seeds))}."
        )
        write_report(TABLES[number], results, setting, Path(args.output))


if __name__ == "__main__":
    # A scheduler's notice and a closed terminal end the running row, too.
    for notice in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(notice, signal.default_int_handler)
    with one_line_errors():
        main(parse_with_opts(get_parser()))
