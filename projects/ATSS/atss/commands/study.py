"""Run the tables of the paper's experiments with any base config, dataset and schedule.

    atss study --table 3 --config-file atss_R_50_FPN_1x.yaml --num-gpus 8

Rows run one after another. The same command skips finished rows and resumes an interrupted one.
"""

import argparse
import contextlib
import logging
import shlex
import signal
import sys
from pathlib import Path

import yaml

from ..config import parse_with_opts
from ..errors import InputError, one_line_errors
from ..study.report import write_report
from ..study.runner import Progress, command, execute, plan
from ..study.tables import TABLES

# What trains and evaluates a run.
TRAIN = (sys.executable, "-m", "atss", "train")


def get_parser():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", type=int, nargs="+", required=True, choices=sorted(TABLES), help="of the paper")
    parser.add_argument("--config-file", required=True, metavar="FILE", help="base config: model, dataset, schedule")
    parser.add_argument("--output", default="output/study", metavar="DIR", help="folder for runs and tables")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1], help="run every row with each of these seeds")
    parser.add_argument("--num-gpus", type=int, default=1)
    parser.add_argument("--dry-run", action="store_true", help="print the configs and commands, run nothing")
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="change the base config; rows have precedence")
    return parser


def main(args):
    if len(args.opts) % 2:
        raise InputError(f"{' '.join(args.opts)}: keys and values must come in pairs")
    # Load every row's config before the first run, so that an invalid one fails before hours are spent.
    with without_repeated_messages(logging.getLogger("atss.config.load")):
        tables = {
            number: [plan(row, args.seeds, args.config_file, args.opts, args.output) for row in TABLES[number].rows]
            for number in dict.fromkeys(args.table)
        }
    runs = {}
    for run in (run for rows in tables.values() for row in rows for run in row):
        runs.setdefault(run.folder, run)
    if args.dry_run:
        for run in runs.values():
            print(f"# {run}")
            print(yaml.safe_dump(run.settings, sort_keys=False), end="")
            print(shlex.join(command(run, TRAIN, args.config_file, args.num_gpus)), end="\n\n")
        return
    left = [run for run in runs.values() if not run.result()]
    if len(left) < len(runs):
        print(f"{len(runs) - len(left)} of {len(runs)} runs are done already.")
    progress = Progress(len(left))
    write_tables(tables, args)
    for run in left:
        progress.start(run)
        try:
            execute(run, command(run, TRAIN, args.config_file, args.num_gpus), progress.show)
        except KeyboardInterrupt:
            raise InputError("interrupted; the same command goes on from the last checkpoint") from None
        progress.end(run)
        write_tables(tables, args)
    for number in tables:
        print(Path(args.output, f"table-{number}.md").read_text())


@contextlib.contextmanager
def without_repeated_messages(logger):
    """Log each message once; messages on the base config would repeat with every row."""
    seen = set()

    def is_new(record):
        is_new = record.msg not in seen
        seen.add(record.msg)
        return is_new

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


def run(arguments=None):
    # A scheduler's signal or a closed terminal ends the running row like Ctrl-C.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    with one_line_errors():
        main(parse_with_opts(get_parser(), arguments))
