"""What tiles gain on small objects in large images: AP, AP of small and medium objects, and seconds per image.

    python benchmarks/tiles.py                       # seven minutes of one CPU core

Draws images of 2,048 pixels with 60 to 100 objects of 8 to 64 pixels, and trains the demo's small model twice, with
equal numbers of iterations, images per batch and pixels per image: on whole images, resized to --size pixels, and on
tiles of --size pixels. Then both detect in the same images, whole and in tiles. The seconds are those of one thread.
"""

import argparse
import logging
import tempfile
import time
from pathlib import Path

import atss  # noqa: F401  (before Detectron2, whose deprecation warnings it silences)

# isort: split
import torch
from tabulate import tabulate

from atss.checkpoints import Checkpointer
from atss.commands import tile
from atss.config import load_config
from atss.data.shapes import SHAPES, generate
from atss.engine import Trainer
from atss.errors import one_line_errors

CONFIG = Path(__file__).parent.parent / "configs/atss_R_10_FPN_demo.yaml"
STYLE = SHAPES._replace(kinds=((1.0, 60, 100, (8, 64)),), max_aspect_ratio=2)
METRICS = ("AP", "APs", "APm")


def get_parser():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", metavar="DIR", help="keep images and models here, and use those that are there")
    parser.add_argument("--side", type=int, default=2048, metavar="PIXELS", help="of the images; default 2048")
    parser.add_argument("--images", type=int, nargs=2, default=(32, 12), metavar="N", help="to train and to test on")
    parser.add_argument("--size", type=int, default=512, metavar="PIXELS", help="of tiles and of the model's input")
    parser.add_argument("--overlap", type=float, default=0.2, metavar="SHARE", help="of two tiles; default 0.2")
    parser.add_argument("--iterations", type=int, default=350, help="of each training; default 350")
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="config keys and values")
    return parser


def main(args):
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(args.output or folder)
        draw(folder, args)
        models = {name: train(folder, name, args) for name in ("whole", "tiles")}
        in_tiles = ["TEST.TILE.SIZE", args.size, "TEST.TILE.OVERLAP", args.overlap]
        tests = {
            ("whole", f"whole images at {args.size}"): [],
            ("tiles", f"whole images at {args.size}"): [],
            ("tiles", f"whole images at {args.side}"): [
                "INPUT.MIN_SIZE_TEST",
                args.side,
                "INPUT.MAX_SIZE_TEST",
                args.side,
            ],
            ("tiles", f"tiles at {args.size}, and the whole image"): in_tiles,
            ("tiles", f"tiles at {args.size}"): [*in_tiles, "TEST.TILE.WHOLE_IMAGE", False],
        }
        rows = [[*names, *test(folder, models[names[0]], opts, args)] for names, opts in tests.items()]
    print(tabulate(rows, ["trained on", "tested on", *METRICS, "seconds per image"], floatfmt=".2f"))
    return rows


def draw(folder, args):
    """Draw images, and cut those to train on into tiles; what is there is kept."""
    style = STYLE._replace(sizes=((args.side, args.side),))
    for seed, (name, number) in enumerate(zip(("whole/train", "val/val"), args.images, strict=True)):
        if not (folder / f"{name}.json").exists():
            generate(folder / name, number, seed, style)
    if not (folder / "tiles").exists():
        sizes = ["--size", args.size, "--overlap", args.overlap]
        tile.run([str(text) for text in (folder / "whole", "--output", folder / "tiles", *sizes)])


def config(folder, name, args, opts):
    """The config of the model that is trained on `name`, "whole" or "tiles"."""
    annotations = {"whole": "whole/train.json", "tiles": "tiles/annotations/train.json", "val": "val/val.json"}
    images = {"whole": "whole/train", "tiles": "tiles/train", "val": "val/val"}
    settings = {
        "DATASETS.REGISTER": [[key, str(folder / annotations[key]), str(folder / images[key])] for key in images],
        "DATASETS.TRAIN": (name,), "DATASETS.TEST": ("val",), "OUTPUT_DIR": folder / f"model_{name}",
        "INPUT.MIN_SIZE_TRAIN": (args.size,), "INPUT.MAX_SIZE_TRAIN": args.size,
        "INPUT.MIN_SIZE_TEST": args.size, "INPUT.MAX_SIZE_TEST": args.size,
        "SOLVER.IMS_PER_BATCH": 4, "SOLVER.MAX_ITER": args.iterations, "SOLVER.WARMUP_ITERS": args.iterations // 8,
        "MODEL.ATSS.IGNORE_CROWD": True, "TEST.VALIDATION_LOSS": False, "TEST.DETECTIONS_PER_IMAGE": 300, "SEED": 1,
    }  # fmt: skip
    pairs = [str(text) for pair in settings.items() for text in pair]
    return load_config(str(CONFIG), [*pairs, *map(str, opts), *args.opts])


def train(folder, name, args):
    """Path of the weights that are trained on `name`."""
    cfg = config(folder, name, args, [])
    weights = Path(cfg.OUTPUT_DIR) / "model_final.pth"
    if not weights.exists():
        weights.parent.mkdir(parents=True, exist_ok=True)
        start, trainer = time.perf_counter(), Trainer(cfg.clone())
        trainer.train()
        print(f"trained on {name}: {time.perf_counter() - start:.0f} s", flush=True)
    return weights


def test(folder, weights, opts, args):
    """METRICS and seconds per image."""
    cfg = config(folder, "whole", args, ["MODEL.WEIGHTS", weights, *opts])
    model = Trainer.build_model(cfg)
    Checkpointer(model).load(str(weights))
    begin = time.process_time()
    results = Trainer.test(cfg, model)["bbox"]
    return [results[name] for name in METRICS] + [(time.process_time() - begin) / args.images[1]]


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    torch.set_num_threads(1)
    with one_line_errors():
        main(get_parser().parse_args())
