"""Write the report of a run: its training, its metrics, and its errors as images.

    atss report output/

writes output/report.html, one file to open in a browser, and its images into output/report/. It works after a training,
after an evaluation alone, and during a training.
"""

import argparse

from ..errors import one_line_errors
from ..report import write_report


def get_parser():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output_dir", metavar="OUTPUT_DIR", help="folder of the run")
    return parser


def main(args):
    print(write_report(args.output_dir))


def run(arguments=None):
    with one_line_errors():
        main(get_parser().parse_args(arguments))
