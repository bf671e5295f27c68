"""Detect objects in images, videos or the images of a camera; draw them, or list them in COCO format.

atss predict street.jpg --config-file output/ --output drawn/
"""

import argparse
import contextlib
import sys

from detectron2.utils.logger import setup_logger

from ..demo.outputs import CocoWriter, FileWriter, Window, check_screen, output_paths
from ..demo.pipeline import process
from ..demo.sources import find_sources
from ..errors import InputError, one_line_errors
from ..predictor import Predictor

# Exit status after Ctrl-C.
INTERRUPTED = 130


def get_parser():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    inputs = "images, videos, folders, glob patterns; - for a list from stdin"
    parser.add_argument("inputs", nargs="*", default=[], metavar="INPUT", help=inputs)
    parser.add_argument("--input", nargs="+", default=[], metavar="INPUT", help="the same, as in Detectron2's demo")
    config = "config file; or the folder of a run, whose last checkpoint is used then"
    parser.add_argument("--config-file", required=True, metavar="PATH", help=config)
    parser.add_argument("--video-input", metavar="FILE", help="a video, whatever its extension")
    parser.add_argument("--webcam", nargs="?", const=0, type=int, metavar="N", help="a camera by its number, default 0")
    parser.add_argument("--output", help="file or folder for the drawn images; without it and --json a window opens")
    parser.add_argument("--json", metavar="FILE", help="file for the detections, in COCO format")
    parser.add_argument("--confidence-threshold", type=float, default=0.5, help="minimum score of a detection")
    parser.add_argument("--batch-size", type=int, metavar="N", help="images per batch; default: 8 on a GPU, 1 on a CPU")
    parser.add_argument("--tile", type=int, metavar="PIXELS", help="detect in overlapping tiles of this size, too")
    overlap = "share of a tile that it has in common with the next one; default 0.2"
    parser.add_argument("--overlap", type=float, metavar="SHARE", help=overlap)
    parser.add_argument(
        "--opts", nargs=argparse.REMAINDER, default=[], help="config keys and values, such as MODEL.WEIGHTS model.pth"
    )
    return parser


def main(args):
    setup_logger(name="atss")
    if args.batch_size is not None and args.batch_size < 1:
        raise InputError(f"--batch-size: expected at least 1, got {args.batch_size}")
    if not 0 <= args.confidence_threshold <= 1:
        raise InputError(f"--confidence-threshold: expected 0 to 1, got {args.confidence_threshold:g}")
    sources = find_sources([*args.inputs, *args.input], args.video_input, args.webcam)
    paths = output_paths(sources, args.output) if args.output else []
    if not args.output and not args.json:
        check_screen()
    predictor = Predictor.load(args.config_file, opts=[*args.opts, *tile_opts(args)])
    if args.overlap is not None and not predictor.cfg.TEST.TILE.SIZE:
        raise InputError(f"--overlap {args.overlap:g}: of tiles, which have no size; add --tile")
    for source in sources:
        source.max_pixels = predictor.cfg.INPUT.MAX_PIXELS
    with contextlib.ExitStack() as stack:
        viewer = coco = None
        if args.json:
            coco = stack.enter_context(contextlib.closing(CocoWriter(args.json, predictor.class_names)))
        if args.output:
            viewer = FileWriter(sources, paths)
        elif not args.json:
            viewer = Window()
        batch_size = args.batch_size or predictor.batch_size
        statistics = process(sources, predictor, args.confidence_threshold, batch_size, viewer, coco)
        if coco:
            coco.finish()
    print(statistics.summary())
    if statistics.interrupted:
        print("interrupted: the files are complete, with all detections up to then", file=sys.stderr)
        raise SystemExit(INTERRUPTED)
    if statistics.failed:
        raise InputError(
            f"{len(statistics.failed)} of {len(sources)} inputs could not be read completely; they are named above"
        )


def tile_opts(args):
    """The config keys and values that --tile and --overlap stand for."""
    given = {"TEST.TILE.SIZE": args.tile, "TEST.TILE.OVERLAP": args.overlap}
    return [text for key, value in given.items() if value is not None for text in (key, str(value))]


def run(arguments=None):
    with one_line_errors():
        main(get_parser().parse_args(arguments))
