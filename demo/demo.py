#!/usr/bin/env python
"""Find objects in images, videos or what a camera sees, and draw them or list them in COCO's format."""

import argparse
import contextlib
import os
import sys

import atss  # noqa: F401  (before Detectron2, whose deprecation warnings it silences)

# isort: split
from detectron2.utils.logger import setup_logger

from atss.errors import InputError, one_line_errors
from atss.predictor import Predictor
from outputs import CocoFile, Files, Window, check_screen, make_folder, output_paths
from pipeline import look
from sources import find_sources

# Exit status after Ctrl-C.
INTERRUPTED = 130


def get_parser():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config-file", required=True, metavar="FILE", help="path to config file")
    parser.add_argument(
        "--input", nargs="+", default=[], help="images, videos, folders, glob patterns; - for a list from stdin"
    )
    parser.add_argument("--video-input", metavar="FILE", help="a video, whatever its extension")
    parser.add_argument("--webcam", nargs="?", const=0, type=int, metavar="N", help="a camera; the first if no number")
    parser.add_argument(
        "--output", help="file or folder for what is drawn; a window opens where neither it nor --json is given"
    )
    parser.add_argument("--json", metavar="FILE", help="file for the objects, in COCO's format")
    parser.add_argument("--confidence-threshold", type=float, default=0.5, help="least score of an object")
    parser.add_argument("--batch-size", type=int, metavar="N", help="images at a time: 8 on a GPU, 1 on a CPU")
    parser.add_argument(
        "--opts", nargs=argparse.REMAINDER, default=[], help="config keys and values, such as MODEL.WEIGHTS model.pth"
    )
    return parser


def main(args):
    setup_logger(name="atss")
    if args.batch_size is not None and args.batch_size < 1:
        raise InputError(f"--batch-size: expected at least 1, got {args.batch_size}")
    sources = find_sources(args.input, args.video_input, args.webcam)
    paths = output_paths(sources, args.output) if args.output else []
    if not args.output and not args.json:
        check_screen()
    predictor = Predictor.load(args.config_file, opts=args.opts)
    with contextlib.ExitStack() as stack:
        viewer = coco = None
        if args.json:
            coco = stack.enter_context(contextlib.closing(CocoFile(args.json, predictor.class_names)))
        if args.output:
            make_folder(os.path.dirname(paths[0]))
            viewer = Files(dict(zip(sources, paths, strict=True)))
        elif not args.json:
            viewer = Window()
        batch_size = args.batch_size or predictor.batch_size
        tally = look(sources, predictor, args.confidence_threshold, batch_size, viewer, coco)
        if coco:
            coco.finish()
    print(tally.summary())
    if tally.interrupted:
        print("interrupted: what had been found is written, and its files are complete", file=sys.stderr)
        raise SystemExit(INTERRUPTED)
    if tally.failed:
        raise InputError(
            f"{len(tally.failed)} of {len(sources)} inputs could not be read, or not to the end; they are named above"
        )


if __name__ == "__main__":
    with one_line_errors():
        main(get_parser().parse_args())
