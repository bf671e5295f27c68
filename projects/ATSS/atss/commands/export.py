"""Write a trained detector to a file that runs without this project.

    atss export --config-file output/config.yaml --format onnx --output exported/ \\
        MODEL.WEIGHTS output/model_final.pth

Format onnx gives model.onnx, example.py, which runs it with onnxruntime, numpy and Pillow, and serve.py, a server that
runs it; format torch gives model.pt2, of torch.export. Both take any number of images of any size. Before anything is
written, the exported model and the PyTorch model look at the same images and must find the same. Where OpenVINO is
installed, it looks at them, too. --int8 adds a smaller, faster model of 8-bit integers, and says what AP it costs.
"""

import argparse
import os
import random
import re
import shutil
import tempfile
from itertools import cycle, islice
from pathlib import Path

from .. import export
from ..config import load_config, parse_with_opts
from ..config.load import class_names
from ..data import read_dataset
from ..data.image_io import read_image, upright_size
from ..data.sources import EXTENSIONS, list_folder
from ..errors import InputError, first_line, one_line_errors
from ..predictor import Predictor, class_names_of

# Go beside an ONNX file.
PROGRAMS = [os.path.join(os.path.dirname(export.__file__), name) for name in ("example.py", "serve.py")]
FILES, INT8 = {"onnx": "model.onnx", "torch": "model.pt2"}, "model_int8.onnx"
# Images that are compared at most, in batches of these sizes.
MOST_IMAGES, BATCHES = 12, (1, 2, 3)
CALIBRATION_IMAGES = 100  # at most


def get_parser():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config-file", required=True, metavar="FILE", help="path to config file")
    parser.add_argument("--format", choices=FILES, default="onnx")
    parser.add_argument("--output", required=True, metavar="DIR", help="folder for the files")
    parser.add_argument(
        "--no-nms", action="store_true", help="leave non-maximum suppression out: the model gives its candidates"
    )
    images = "files or folders of images to compare with; default: those of DATASETS.TEST"
    parser.add_argument("--images", nargs="+", metavar="PATH", help=images)
    parser.add_argument(
        "--int8", metavar="DATASET", help="also write model_int8.onnx, calibrated on images of DATASETS.TRAIN, or of "
        "DATASET where that is empty; on DATASET, which has annotations, its AP is measured beside the float model's"
    )  # fmt: skip
    drop = "by how much the AP, in percent, of --int8 may be lower: else nothing is written (default: %(default)s)"
    parser.add_argument("--max-ap-drop", type=float, default=1.0, metavar="POINTS", help=drop)
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="config keys and values")
    return parser


def main(args):
    save, load, suppress = make_format(args.format)
    cfg = load_config(args.config_file, [*args.opts, "MODEL.DEVICE", "cpu"], read_datasets=False)
    if cfg.TEST.AUG.ENABLED:
        raise InputError("TEST.AUG.ENABLED: multi-scale testing cannot be exported; set it to False")
    if cfg.TEST.TILE.SIZE:
        raise InputError("TEST.TILE.SIZE: tiles cannot be exported; set it to 0")
    if os.path.exists(args.output) and not os.path.isdir(args.output):
        raise InputError(f"--output {args.output}: is a file; name a folder")
    if args.int8 and args.format != "onnx":
        raise InputError(f"--int8 {args.int8}: needs --format onnx")
    for_int8 = datasets_for_int8(cfg, args.int8) if args.int8 else None
    paths = choose(named(args.images) if args.images else of_datasets(cfg))
    predictor = Predictor(cfg)
    images = [predictor.prepare(read_image(path))["image"] for path in paths]
    with draft_for(args.output) as draft:
        path = os.path.join(draft, FILES[args.format])
        print(f"Exporting {cfg.MODEL.WEIGHTS} ...", flush=True)
        try:
            program = export.capture(export.ExportedATSS(predictor.model, None if args.no_nms else suppress))
            save(program, path, export.describe(cfg, suppressed=not args.no_nms))
        except Exception as error:  # whatever a layer without a counterpart makes the exporter raise
            reason = first_line(error.__cause__ or error)
            raise InputError(f"--format {args.format}: this model cannot be exported ({reason})") from error
        print("Comparing it with PyTorch ...", flush=True)
        compare(predictor.model, load(path), images, not args.no_nms)
        if args.format == "onnx":
            compare_in_openvino(predictor.model, path, images, not args.no_nms)
            for program in PROGRAMS:
                shutil.copy(program, draft)
        if args.int8:
            add_int8(predictor, path, args.int8, args.max_ap_drop, *for_int8)
        written = sorted(os.listdir(draft), reverse=True)
        try:
            os.makedirs(args.output, exist_ok=True)
            for name in written:
                os.replace(os.path.join(draft, name), os.path.join(args.output, name))
            if args.format == "onnx" and not args.int8:  # one of an earlier export is of another model
                Path(args.output, INT8).unlink(missing_ok=True)
        except OSError as error:
            raise InputError(f"--output {args.output}: cannot write there ({error.strerror})") from error
    print(f"Written: {args.output}: {', '.join(written)}")


def draft_for(output):
    """A folder beside `output` for files that are not complete yet, as a context manager that removes it."""
    parent = os.path.dirname(os.path.abspath(output))
    try:
        os.makedirs(parent, exist_ok=True)
        return tempfile.TemporaryDirectory(prefix=".export", dir=parent, ignore_cleanup_errors=True)
    except OSError as error:
        raise InputError(f"--output {output}: cannot write there ({error.strerror})") from error


def make_format(name):
    """What saves, what loads, and the suppression for a format."""
    if name == "torch":
        return export.save_torch, export.load_torch, export.suppress
    try:
        from atss.export.onnx_file import load_onnx, save_onnx
    except ImportError as error:
        raise InputError(
            f"--format onnx: {first_line(error)}; it needs further packages: pip install onnx onnxscript onnxruntime"
        ) from error
    return save_onnx, load_onnx, export.suppress_op


def named(names):
    """Images that files and folders name: list of (path, (width, height))."""
    images = []
    for name in names:
        paths = [os.path.join(name, file) for file in list_folder(name, *EXTENSIONS)] if os.path.isdir(name) else [name]
        if not paths or not os.path.exists(paths[0]):
            raise InputError(f"--images {name}: no image there")
        try:
            images += [(path, upright_size(path)) for path in paths]
        except InputError as error:
            raise InputError(f"--images {error}") from error
    return images


def of_datasets(cfg):
    """The same of DATASETS.TEST."""
    try:
        records = [record for name in cfg.DATASETS.TEST for record in read_dataset(name)]
    except InputError as error:
        raise InputError(f"{error}; or name images to compare with: --images") from error
    if not records:
        raise InputError("DATASETS.TEST has no images to compare with: name some with --images")
    return [(record["file_name"], (record["width"], record["height"])) for record in records]


def choose(images):
    """Paths of a dozen images of all shapes, shuffled, so that those of a batch differ."""
    ordered = sorted(images, key=lambda image: (image[1][0] / image[1][1], image))
    last, number = len(ordered) - 1, min(len(ordered), MOST_IMAGES)
    chosen = [ordered[round(last * i / max(number - 1, 1))][0] for i in range(number)]
    random.Random(0).shuffle(chosen)
    return chosen


def batches(images):
    """The images in batches of one and of more, some of them twice where there are only one or two."""
    images, sizes = islice(cycle(images), max(len(images), sum(BATCHES[:2]))), cycle(BATCHES)
    while batch := list(islice(images, next(sizes))):
        yield batch


def compare(detector, model, images, suppressed):
    """Print how the exported model and the detector differ; raise an InputError where that is too much."""
    comparison = export.compare(detector, model, batches(images), suppressed)
    if comparison.disagreements:
        raise InputError(
            f"the exported model does not agree with PyTorch's, and is not written: {len(comparison.disagreements)} "
            f"boxes differ beside {comparison}; {comparison.disagreements[0]}"
        )
    if not comparison.num_boxes:
        raise InputError(
            f"the model finds nothing in the {comparison.num_images} images, so there is nothing to compare: name "
            "others with --images, or lower MODEL.ATSS.SCORE_THRESH_TEST"
        )
    print(f"They agree: {comparison}")


def compare_in_openvino(detector, path, images, suppressed):
    """Print how an ONNX file differs from the detector in OpenVINO, where that is installed. Nothing depends on it."""
    try:
        from ..export.openvino_file import load_openvino
    except ImportError:
        return
    try:
        comparison = export.compare(detector, load_openvino(path), batches(images), suppressed)
    except Exception as error:  # whatever a layer that OpenVINO does not have makes it raise
        missing = re.search("No conversion rule found for operations: .*", str(error))
        print(f"OpenVINO cannot run it ({missing[0] if missing else first_line(error)})")
        return
    if comparison.disagreements:
        print(f"In OpenVINO {len(comparison.disagreements)} boxes differ: {comparison.disagreements[0]}")
    else:
        print(f"In OpenVINO they agree, too: {comparison}")


def datasets_for_int8(cfg, dataset):
    """Check the dataset of --int8. Return its dicts, and names of datasets and image paths to calibrate with."""
    names = class_names(dataset)
    if len(names) != cfg.MODEL.ATSS.NUM_CLASSES or (cfg.MODEL.ATSS.CLASS_NAMES and names != class_names_of(cfg)):
        raise InputError(f"--int8 {dataset}: its classes are {', '.join(names)}, and not those of the model")
    records = read_dataset(dataset)
    if not any(record.get("annotations") for record in records):
        raise InputError(f"--int8 {dataset}: has no annotations to measure AP with; name a dataset that has")
    try:
        train = [record for name in cfg.DATASETS.TRAIN for record in read_dataset(name)]
    except InputError as error:
        raise InputError(f'{error}; or calibrate with {dataset}: DATASETS.TRAIN "()"') from error
    source = ", ".join(cfg.DATASETS.TRAIN) if train else dataset
    return records, source, [record["file_name"] for record in spread(train or records, CALIBRATION_IMAGES)]


def add_int8(predictor, path, dataset, max_ap_drop, records, source, calibration_paths):
    """Write model_int8.onnx beside the ONNX file; raise an InputError if its AP is too low.

    The last three arguments are those that `datasets_for_int8` returns.
    """
    from ..export.accuracy import measure
    from ..export.example import Detector
    from ..export.int8_file import save_int8

    print(f"Quantizing it, calibrated with {len(calibration_paths)} images of {source} ...", flush=True)
    int8_path = os.path.join(os.path.dirname(path), INT8)
    save_int8(path, int8_path, (predictor.prepare(read_image(image))["image"] for image in calibration_paths))
    print(f"Measuring it on the {len(records)} images of {dataset} ...", flush=True)
    files = {"float32": path, "int8": int8_path}
    measured = measure([Detector(file, threads=1) for file in files.values()], dataset, records)
    for (name, file), (ap, milliseconds) in zip(files.items(), measured, strict=True):
        size = os.path.getsize(file) / 1e6
        print(f"{name:>8}: AP {ap:.2f}, {size:.1f} MB, {milliseconds:.1f} ms per image on one core")
    (before, _), (after, _) = measured
    if not (before - after <= max_ap_drop):  # nan where a model detects nothing
        raise InputError(
            f"--int8 {dataset}: AP falls from {before:.2f} to {after:.2f}, by more than the {max_ap_drop:g} of "
            "--max-ap-drop; nothing is written"
        )


def spread(items, number):
    """At most `number` items, evenly from the whole list."""
    number = min(number, len(items))
    return [items[i * len(items) // number] for i in range(number)]


def run(arguments=None):
    with one_line_errors():
        main(parse_with_opts(get_parser(), arguments))
