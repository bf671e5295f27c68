"""Time of an exported model in ONNX Runtime and OpenVINO, in float32 and int8, beside PyTorch's on the CPU, in turns.

    python benchmarks/export.py                          # the paper's model and the demo's, one thread and all
    python benchmarks/export.py --model demo --threads 1
    python benchmarks/export.py --config-file output/config.yaml --size 800 1088 MODEL.WEIGHTS output/model_final.pth

An image at a time, from uint8 pixels to the boxes after non-maximum suppression. Weights are random where none are
given; the score threshold is the score that all classes then start from, so that suppression has as much to do as it
ever has. OpenVINO takes part where it is installed.
"""

import argparse
import os
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path

import atss  # noqa: F401  (before Detectron2, whose deprecation warnings it silences)

# isort: split
import onnxruntime
import torch
from detectron2.modeling import build_model

from atss.checkpoints import Checkpointer
from atss.config import load_config, parse_with_opts
from atss.errors import one_line_errors
from atss.export import ExportedATSS, capture, suppress_op
from atss.export.int8_file import save_int8
from atss.export.onnx_file import load_onnx, save_onnx

try:
    from atss.export.openvino_file import load_openvino
except ImportError:
    load_openvino = None

CONFIGS = Path(__file__).parent.parent / "configs"
# Config and size (height, width) of the image.
MODELS = {
    "R-50": (CONFIGS / "atss_R_50_FPN_1x.yaml", (800, 1088)),
    "demo": (CONFIGS / "atss_R_10_FPN_demo.yaml", (160, 192)),
}
RANDOM_WEIGHTS = ["MODEL.WEIGHTS", "", "MODEL.ATSS.NUM_CLASSES", "80", "MODEL.ATSS.SCORE_THRESH_TEST", "0.01",
                  "DATASETS.TRAIN", "()", "DATASETS.TEST", "()"]  # fmt: skip


def get_parser():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--config-file", metavar="FILE", help="measure this model instead")
    parser.add_argument("--size", nargs=2, type=int, default=(800, 1088), metavar=("HEIGHT", "WIDTH"))
    threads = sorted({1, os.cpu_count()})
    parser.add_argument("--threads", nargs="+", type=int, default=threads, help="of all; default: 1, and all cores")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="config keys and values")
    return parser


def main(args):
    models = {name: MODELS[name] for name in args.model}
    if args.config_file:
        models = {os.path.basename(args.config_file): (args.config_file, args.size)}
    print(f"torch {torch.__version__}, onnxruntime {onnxruntime.__version__}")
    print(f"Medians of {args.repeats} in ms, and how many times as fast as PyTorch")
    for name, (config_file, size) in models.items():
        weights = [] if args.config_file else RANDOM_WEIGHTS
        opts = [*weights, *args.opts, "MODEL.DEVICE", "cpu"]
        detector = make_detector(load_config(str(config_file), opts, read_datasets=False))
        generator = torch.Generator().manual_seed(0)
        image = torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=generator)
        for threads in args.threads:
            torch.set_num_threads(threads)
            print(f"{name}, {'{}x{}'.format(*size)}, {threads} threads")
            seconds = measure(detector, image, args.repeats)
            for runtime, value in seconds.items():
                print(f"{runtime:>20} {value * 1e3:>10.1f} {seconds['PyTorch'] / value:>6.2f}", flush=True)


def make_detector(cfg):
    torch.manual_seed(0)
    detector = build_model(cfg).eval()
    if cfg.MODEL.WEIGHTS:
        Checkpointer(detector).load(cfg.MODEL.WEIGHTS)
    return detector


@torch.no_grad()
def measure(detector, image, repeats):
    """Median seconds of each, by name."""
    sizes = torch.tensor([image.shape[1:]])
    runs = {"PyTorch": lambda: detector([{"image": image}])}
    loaders = {"ONNX Runtime": load_onnx, "OpenVINO": load_openvino}
    with tempfile.TemporaryDirectory() as folder:
        path, int8_path = os.path.join(folder, "model.onnx"), os.path.join(folder, "model_int8.onnx")
        save_onnx(capture(ExportedATSS(detector, suppress_op)), path, {})
        save_int8(path, int8_path, [image])
        for name, load in loaders.items():
            if load:
                runs[name] = partial(load(path), image[None], sizes)
                runs[f"{name}, int8"] = partial(load(int8_path), image[None], sizes)
    for run in runs.values():
        for _ in range(2):
            run()
    seconds = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            begin = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - begin)
    return {name: statistics.median(values) for name, values in seconds.items()}


if __name__ == "__main__":
    with one_line_errors():
        main(parse_with_opts(get_parser()))
