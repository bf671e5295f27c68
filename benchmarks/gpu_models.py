"""The parts "step" and "inference" of `gpu.py`: whole detectors, with random weights, beside each other."""

import itertools
import statistics
import time
from functools import partial
from types import SimpleNamespace

import torch
from detectron2.utils.events import EventStorage

from assigner import median_seconds
from atss import modeling
from detector import Runner
from detectors import NAMES, is_available
from operations import prepare


def step(bench):
    """The training step of each detector: milliseconds, images a second, peak memory; and by part."""
    images, size = (2, (64, 96)) if bench.quick else (16, (800, 1333))
    for precision in ("bfloat16",) if bench.quick else ("float32", "bfloat16"):
        found = {}
        for name in NAMES:
            if not is_available(name):
                bench.report(f"{name}, {precision}", skipped="this version of Detectron2 does not have it")
                continue
            args = settings(bench, images, size, precision)
            found[name] = bench.attempt(f"{name}, {precision}", time_of_step, bench, name, args, needs=8)
        ours = found.pop("atss")
        for name, other in found.items():
            if ours and other:
                ratios = {key: ours[key] / other[key] for key in ("ms", "peak_gb") if key in ours}
                bench.report(f"atss / {name}, {precision}", **ratios)


def settings(bench, images, size, precision):
    """The arguments of a `Runner`."""
    return SimpleNamespace(
        batch=images, size=size, objects=20, classes=80, precision=precision, device=bench.device.type
    )


def make_runner(name, args):
    """A `Runner` whose images are on its device already, as those of every detector alike."""
    runner = Runner(name, args)
    for record in runner.batch:
        record["image"] = record["image"].to(args.device)
    return runner


def time_of_step(bench, name, args):
    runner = make_runner(name, args)
    runner.model.train()
    with EventStorage():
        for _ in range(1 if bench.quick else 3):
            loss = sum(runner.whole_step().values()).item()
        peak = bench.peak_gb(runner.whole_step)
        seconds = median_seconds(runner.whole_step, bench.device, 0 if bench.quick else 4)
        runner.separate_assignment()
        by_part = [dict(runner.step()) for _ in range(2 if bench.quick else 4)][1:]
    medians = {part: 1e3 * statistics.median(values[part] for values in by_part) for part in by_part[0]}
    speed = {"ms": 1e3 * seconds, "images_per_s": args.batch / seconds}
    return speed | peak | {"loss": loss, "ms_by_part": medians}


def inference(bench):
    """Milliseconds an image of the model as it is, with folded normalization, and compiled; of RetinaNet beside it."""
    batches, size = ((1,), (64, 96)) if bench.quick else ((16, 1), (800, 1333))
    precisions = ("float32",) if bench.quick else ("float32", "bfloat16")

    def measure(title, name, change, images, precision, needs=5):
        args = settings(bench, images, size, precision)
        title = f"{title}, {images} image(s), {precision}"
        if change is None:
            bench.report(title, skipped="this version of the project does not have it")
            return
        bench.attempt(title, time_of_inference, bench, name, args, change, needs=needs)

    for images, precision in itertools.product(batches, precisions):
        measure("plain", "atss", as_it_is, images, precision)
        measure("folded", "atss", getattr(modeling, "for_inference", None), images, precision)
        measure("retinanet", "retinanet", as_it_is, images, precision)
    for images in batches:
        bench.attempt(f"post-processing, {images} image(s)", time_of_detection, bench, images, size)
    # Last, because compilation takes most of the time.
    change, needs = (partial(compiled, backend="eager"), 5) if bench.quick else (compiled, 25)
    for images, precision in itertools.product(batches, precisions):
        measure("compiled", "atss", change, images, precision, needs)


def as_it_is(model):
    return model


def compiled(model, backend="inductor"):
    """The model with its backbone and head compiled for the shapes that come."""
    torch.compiler.reset()
    model.backbone.compile(backend=backend, dynamic=False)
    model.head.compile(backend=backend, dynamic=False)
    return model


def time_of_inference(bench, name, args, change):
    runner = make_runner(name, args)
    runner.model.eval()
    reference = logits_of(runner) if name == "atss" else None
    runner.model = change(runner.model)
    start = time.perf_counter()
    for _ in range(3):
        runner.whole_inference()
    if bench.on_gpu:
        torch.cuda.synchronize()
    first = time.perf_counter() - start
    seconds = median_seconds(runner.whole_inference, bench.device, 2 * bench.seconds)
    result = {
        "ms_per_image": 1e3 * seconds / args.batch,
        **bench.peak_gb(runner.whole_inference),
        "first_three_s": first,
    }
    if reference is not None:
        # Relative to the largest.
        result["logits_differ_by"] = ((logits_of(runner) - reference).abs().max() / reference.abs().max()).item()
    return result


@torch.no_grad()
def logits_of(runner):
    """All class scores before the sigmoid, in float32."""
    with runner._autocast():
        _, _, predictions = runner.model.predict(runner.batch)
    return torch.cat([values.flatten().float() for values in predictions.logits])


def time_of_detection(bench, images, size):
    """Post-processing of predictions of which about one logit in 200 is above the threshold."""
    args = SimpleNamespace(images=images, size=size, objects=20, classes=80, device=bench.device)
    _, predict, _, detect, _ = prepare("atss", args)
    with torch.no_grad():
        predictions = predict()
        result = {"us": bench.median_us(lambda: detect(predictions)), **bench.launches(lambda: detect(predictions))}
    result.pop("by_name", None)
    return result
