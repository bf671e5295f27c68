"""Measure the evaluation of boxes against pycocotools, on the same detections.

    python benchmarks/evaluation.py                  # as many images and detections as on COCO val
    python benchmarks/evaluation.py --spread 60      # detections of 60 classes per image instead of 15

Measured is the time from a list or a file of results to the printed table. faster-coco-eval is measured, too, where it
is installed. The others take longer, the more classes there are among the detections of an image.
"""

import argparse
import contextlib
import copy
import importlib.util
import io
import json
import tempfile
import time

import numpy as np
from pycocotools.cocoeval import COCOeval

from atss.evaluation.coco import evaluate_boxes, index_coco

CLASSES = 80
WIDTH, HEIGHT = 640, 480
FIGURES = ("AP", "AP50", "AP75", "APs", "APm", "APl")


def main():
    args = parse_arguments()
    coco, results = generate(args)
    print(
        f"numpy {np.__version__}; {args.images} images, {CLASSES} classes, {len(coco.anns)} objects, "
        f"{len(results)} detections of {args.spread} classes per image"
    )
    print(f"{'implementation':>16} {'results':>8} {'seconds':>8} {'CPU':>8}" + "".join(f"{n:>9}" for n in FIGURES))
    runs = {"this project": evaluate_boxes, "pycocotools": with_pycocotools}
    if importlib.util.find_spec("faster_coco_eval"):
        runs["faster-coco-eval"] = with_faster_coco_eval
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(results, file)
        file.flush()
        sources = {"list": results, "file": file.name}
        measured = {
            (name, kind): timed(run, coco, source) for kind, source in sources.items() for name, run in runs.items()
        }
    for (name, kind), (evaluation, seconds, cpu) in measured.items():
        row = "".join(f"{100 * figure:>9.4f}" for figure in evaluation.stats[: len(FIGURES)])
        print(f"{name:>16} {kind:>8} {seconds:>8.2f} {cpu:>8.2f}{row}")
    print()
    for (name, kind), (evaluation, seconds, _) in measured.items():
        theirs, their_seconds, _ = measured["pycocotools", kind]
        if evaluation is not theirs:
            difference = np.abs(evaluation.eval["precision"] - theirs.eval["precision"]).max()
            print(
                f"{name}, from a {kind}: {their_seconds / seconds:.1f}x as fast as pycocotools, precisions differ by "
                f"at most {difference:.1e}"
            )


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--detections", type=int, default=100, help="per image")
    parser.add_argument("--spread", type=int, default=15, choices=range(3, CLASSES + 1), metavar="3..80",
                        help="classes among the detections of an image")  # fmt: skip
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def generate(args):
    """Generate images with 7 objects of three classes on average, and detections near them and elsewhere.

    Returns:
        `pycocotools.coco.COCO` with the objects, and a list of results.
    """
    random, annotations, results = np.random.default_rng(args.seed), [], []
    frequency = 1 / np.arange(1, CLASSES + 1)
    for image_id in range(1, args.images + 1):
        classes = random.choice(CLASSES, args.spread, replace=False, p=frequency / frequency.sum()) + 1
        count = random.poisson(7)
        boxes, labels = random_boxes(random, count), random.choice(classes[:3], count)
        for box, label, crowd in zip(boxes.tolist(), labels.tolist(), random.random(count) < 0.01, strict=True):
            annotations.append(
                {
                    "id": len(annotations) + 1, "image_id": image_id, "category_id": label, "bbox": box,
                    "area": box[2] * box[3], "iscrowd": int(crowd),
                }
            )  # fmt: skip
        near = np.repeat(np.arange(count), 3)[: args.detections]
        rest = args.detections - len(near)
        shift = random.normal(0, 0.08, (len(near), 4)) * np.tile(boxes[near, 2:], 2)
        found = np.concatenate([boxes[near] + shift, random_boxes(random, rest)])
        guessed = np.concatenate([labels[near], random.choice(classes, rest)])
        scores = random.random(args.detections) * np.where(np.arange(args.detections) < len(near), 1, 0.5)
        for box, label, score in zip(found.tolist(), guessed.tolist(), scores.tolist(), strict=True):
            results.append({"image_id": image_id, "category_id": label, "bbox": box, "score": score})

    content = {
        "images": [{"id": i, "width": WIDTH, "height": HEIGHT} for i in range(1, args.images + 1)],
        "categories": [{"id": i, "name": f"class {i}"} for i in range(1, CLASSES + 1)],
        "annotations": annotations,
    }
    return index_coco(content), results


def random_boxes(random, count):
    """Return boxes (count, 4) as x, y, width, height, with sides log-uniform from 10 to 300 pixels."""
    sides = 10 * 30 ** random.random((count, 2))
    return np.concatenate([random.random((count, 2)) * [WIDTH, HEIGHT] - sides / 2, sides], axis=1)


def timed(run, coco, results):
    """Run an implementation; return its evaluation, the wall-clock seconds and the CPU seconds."""
    results = copy.deepcopy(results)  # pycocotools writes into them
    with contextlib.redirect_stdout(io.StringIO()):
        begin, begin_cpu = time.perf_counter(), time.process_time()
        evaluation = run(coco, results)
        return evaluation, time.perf_counter() - begin, time.process_time() - begin_cpu


def with_pycocotools(coco, results, implementation=COCOeval):
    evaluation = implementation(coco, coco.loadRes(results), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return evaluation


def with_faster_coco_eval(coco, results):
    from faster_coco_eval.core import COCOeval_faster

    return with_pycocotools(coco, results, COCOeval_faster)


if __name__ == "__main__":
    main()
