"""The parts of `gpu.py`, each run in a process of its own: `python benchmarks/gpu_parts.py PART --device cuda`.

Prints a line of JSON for every measurement. One that fails does not end its part, unless the GPU can no longer be used;
its traceback is printed.
"""

import argparse
import contextlib
import faulthandler
import os
import platform
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import detectron2
import torch
import torchvision
from detectron2.utils.events import EventStorage

import atss
import peers
from assigner import make_grid, random_boxes
from atss.modeling.assigners import ATSSAssigner
from detectors import NAMES, is_available
from gpu import SHARES
from gpu_bench import Bench
from gpu_models import inference, step
from gpu_training import training
from operations import prepare

ROOT = Path(__file__).parents[1]
# Processes that share the tests: most of their time is the compilation of kernels.
TEST_PROCESSES = 4
# Calls in a row, for which the host runs ahead of the GPU.
IN_A_ROW = 20


def tests(bench):
    """All tests that are marked gpu but those that only compile, in several processes; a result for each that fails."""
    chosen = ["-k", "not compile"]
    if bench.quick:
        chosen = ["tests/modeling/test_fused_losses.py", "-k", "waits_for_the_gpu or extreme_logits"]
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-m", "gpu", "--tb=short", "--durations=3"]
    collect = [*command, *chosen, "-q", "--collect-only", "--continue-on-collection-errors"]
    collected = subprocess.run(collect, cwd=ROOT, capture_output=True, text=True)
    ids = [line for line in collected.stdout.splitlines() if line.startswith("tests/") and "::" in line]
    if not ids:
        raise SystemExit(f"{collected.stdout[-3000:]}{collected.stderr[-3000:]}error: there are no tests")
    # Those of the kernels' interplay with the GPU come first.
    ids.sort(key=lambda test: not re.search("waits_for_the_gpu|on_a_gpu", test))
    processes = min(len(ids), 1 if bench.quick else TEST_PROCESSES)
    groups = [ids[first::processes] for first in range(processes)]
    outcomes = {}

    def summarize(**more):
        counts = {word: list(outcomes.values()).count(word) for word in ("passed", "failed", "skipped")}
        running = [next((test for test in few if test not in outcomes), None) for few in groups]
        running = [test.split("::")[1] for test in running if test]
        bench.report("tests", of=len(ids), **counts, **({"running": running} if running else {}), **more)

    def run(few):
        process = subprocess.Popen(
            [*command, "-v", *few], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        output = []
        for line in process.stdout:
            output.append(line)
            outcome = re.match(r"(tests/.*) (PASSED|FAILED|ERROR|SKIPPED)\b", line)
            failure = re.match(r"(?:FAILED|ERROR) (tests/\S+)(?: - (.*))?", line)
            if outcome:
                outcomes[outcome[1]] = outcome[2].lower().replace("error", "failed")
                if len(outcomes) % 5 == 0:
                    summarize()
            elif failure:
                bench.report(failure[1], error=failure[2] or "")
        if process.wait():
            print(*output, sep="", flush=True)
        return process.returncode

    with ThreadPoolExecutor(len(groups)) as pool:
        statuses = list(pool.map(run, groups))
    summarize(exit_statuses=statuses)
    bench.failed = any(statuses)


def assigner(bench):
    """Microseconds for a batch, with few and many objects, and whether matches are equal and nothing waits."""
    images, height, width = (2, 128, 160) if bench.quick else (16, 800, 1344)
    grid, on_host = (make_grid(height, width, [1.0], device) for device in (bench.device, torch.device("cpu")))
    torch_backend, triton = ATSSAssigner(9, "torch"), ATSSAssigner(9, "triton")
    batches = {}
    for objects in (20, 100, 1000):
        boxes = batches[objects] = random_boxes(images, objects, height, width, 0, bench.device)
        expected = torch_backend(on_host, [few.cpu() for few in boxes]).to(bench.device)
        given = bench, grid, boxes, expected
        bench.only_on_gpu(f"{objects} objects, in a graph", time_in_graph, triton, *given)
        bench.only_on_gpu(f"{objects} objects, calls", time_of_calls, triton, *given)
        bench.attempt(f"{objects} objects, torch backend", time_of_calls, torch_backend, *given)
        bench.attempt(f"{objects} objects, full matrix", time_of_naive, peers.naive(9), *given)
    for objects, boxes in batches.items():
        call = partial(triton, grid, boxes)
        bench.only_on_gpu(f"{objects} objects, kernels", bench.launches, call)
        bench.only_on_gpu(f"{objects} objects, waits", bench.waits, call)
    bench.attempt("20 objects, kernels of the torch backend", bench.launches, partial(torch_backend, grid, batches[20]))


def time_in_graph(assign, bench, grid, boxes, expected):
    """Time of the kernels in a CUDA graph, of many in a row and of one, and whether it finds the matches expected."""
    assign(grid, boxes)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        matches = assign(grid, boxes)
    matches.fill_(-7)
    graph.replay()
    equal = torch.equal(matches, expected)
    us = {"us": bench.median_us(graph.replay, IN_A_ROW), "us_of_one": bench.median_us(graph.replay)}
    return us | {"equal": equal}


def time_of_calls(assign, bench, grid, boxes, expected):
    """Time of a call by itself, with what the host does, and of one of many."""
    equal = torch.equal(assign(grid, boxes), expected)

    def call():
        assign(grid, boxes)

    us = {"us": bench.median_us(call), "us_in_a_row": bench.median_us(call, 1 if bench.quick else IN_A_ROW)}
    return us | {"equal": equal} | bench.peak_gb(call)


def time_of_naive(assign, bench, grid, boxes, expected):
    # It differs where rounding decides: its distances and sums are in float32.
    differing = (assign(grid, boxes) != expected).sum().item()
    return {"us": bench.median_us(lambda: assign(grid, boxes)), "differing_anchors": differing}


def losses(bench):
    """Kernels, time and bytes of the losses and their gradient; whole losses beside those of other detectors."""
    images, size = (2, (128, 160)) if bench.quick else (16, (800, 1344))
    args = SimpleNamespace(images=images, size=size, objects=20, classes=80, device=bench.device)
    copy = bench.attempt("copy", bandwidth, bench)
    copied = copy["gb_per_s"] if copy else None
    for dtype in (torch.float32, torch.bfloat16):
        bench.attempt(f"losses, {str(dtype)[6:]}", time_of_losses, bench, args, dtype, copied)
    for name in NAMES:
        if is_available(name):
            bench.attempt(f"{name} with assignment", time_with_assignment, bench, name, args)
        else:
            bench.report(f"{name} with assignment", skipped="this version of Detectron2 does not have it")


def bandwidth(bench):
    """GB per second, read and written, of a large copy on the device: the peak that the losses are compared with."""
    source = torch.ones(1 << (20 if bench.quick else 30), dtype=torch.uint8, device=bench.device)
    target = torch.empty_like(source)
    return {"gb_per_s": 2 * len(source) / bench.median_us(lambda: target.copy_(source), 4) / 1e3}


def time_of_losses(bench, args, dtype, copied):
    """Forward and backward pass of the losses without assignment, from predictions of a dtype."""
    model, predict, *_ = prepare("atss", args)
    head = model.head
    grid, predictions = predict()
    predictions = type(predictions)(
        *([values.detach().to(dtype).requires_grad_() for values in maps] for maps in predictions)
    )
    leaves = [values for maps in predictions for values in maps]
    boxes = random_boxes(args.images, args.objects, *args.size, 0, bench.device)
    classes = [torch.zeros(len(few), dtype=torch.int64, device=bench.device) for few in boxes]
    matches = head.assigner(grid, boxes)
    head.assigner = lambda *_: matches

    def forward():
        return sum(head.losses(grid, predictions, boxes, classes).values())

    def both():
        return torch.autograd.grad(forward(), leaves)

    name = f"losses, {str(dtype)[6:]}"
    bench.only_on_gpu(f"{name}, difference of the backends", difference_of_backends, head, forward, both)
    bench.only_on_gpu(f"{name}, waits", bench.waits, both)
    result = {"us": bench.median_us(both), "us_in_a_row": bench.median_us(both, 1 if bench.quick else IN_A_ROW)}
    result |= bench.peak_gb(both)
    of_forward = bench.launches(forward)
    result |= {"forward": of_forward, "forward_and_backward": bench.launches(both)}
    # Each prediction is read, each gradient written, and each match read, once.
    needed = sum(2 * values.numel() * values.element_size() for values in leaves) + 8 * matches.numel()
    result["needed_mb"] = needed / 1e6
    if copied:
        for name, us in (("forward", of_forward.get("gpu_us")), ("in_a_row", result["us_in_a_row"])):
            if us:
                result[f"share_of_copy_{name}"] = needed / us / 1e3 / copied
    return result


def difference_of_backends(head, forward, both):
    """Relative differences of the Triton backend from the torch backend: of the loss and of its gradient."""
    ours = forward().item(), torch.cat([values.flatten().float() for values in both()])
    head.loss_backend = "torch"
    theirs = forward().item(), torch.cat([values.flatten().float() for values in both()])
    head.loss_backend = "auto"
    return {
        "loss": ours[0],
        "loss_differs_by": abs(ours[0] - theirs[0]) / theirs[0],
        "gradient_differs_by": ((ours[1] - theirs[1]).norm() / theirs[1].norm()).item(),
    }


def time_with_assignment(bench, name, args):
    """Losses of a detector with label assignment, forward and backward, from the predictions on."""
    _, predict, losses_of, _, leaves = prepare(name, args)

    def both():
        return torch.autograd.grad(sum(losses_of(predict()).values()), leaves)

    with EventStorage():
        result = {"us": bench.median_us(both), **bench.peak_gb(both), **bench.launches(both)}
    result.pop("by_name", None)
    return result


def machine(bench):
    """Versions, and the GPU."""
    versions = {module.__name__: module.__version__ for module in (atss, torch, torchvision, detectron2)}
    found = {"python": platform.python_version(), **versions, "cores": os.cpu_count()}
    with contextlib.suppress(ImportError):
        import triton

        found["triton"] = triton.__version__
    if bench.on_gpu:
        properties = torch.cuda.get_device_properties(bench.device)
        found |= {
            "gpu": properties.name,
            "gpu_memory_gb": properties.total_memory / 1e9,
            "capability": f"{properties.major}.{properties.minor}",
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
        }
    return found


PARTS = {part.__name__: part for part in (tests, assigner, losses, step, inference, training)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=SHARES)
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument(
        "--until", type=float, default=time.time() + 120, help="when it is ended, in seconds since the epoch"
    )
    parser.add_argument("--quick", action="store_true", help="tiny sizes and few rounds")
    args = parser.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("error: PyTorch finds no CUDA GPU here; --device cpu --quick rehearses")
    # Shows what it does when it is ended for its time.
    faulthandler.dump_traceback_later(max(1, args.until - time.time() - 2))
    torch.set_float32_matmul_precision("high")  # TF32, which convolutions use by default
    bench = Bench(args.device, args.quick, args.until)
    bench.report("machine", **machine(bench))
    PARTS[args.part](bench)
    return 1 if bench.failed else 0


if __name__ == "__main__":
    sys.exit(main())
