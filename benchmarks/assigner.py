"""Time and memory of the assigners and of other implementations, on the same boxes in one run.

    python benchmarks/assigner.py                                     # our backends and the full-matrix algorithm
    python benchmarks/assigner.py --paper path/to/ATSS --plot time.png
    python benchmarks/assigner.py --device cuda --paper path/to/ATSS  # the same on a GPU, timed with events
    python benchmarks/assigner.py --rule iou topk_iou --paper path/to/ATSS

The full-matrix algorithm and mmdetection's assigner, where mmdet is installed, take part for ATSS only; the paper's
code has every rule but centre sampling; "-" means that there is nothing to compare with. Times are medians after
a warm-up; memory is the peak allocation of a call without its result. The other implementations work image by
image; if a batch takes too long, they get its first images only.
"""

import argparse
import contextlib
import importlib.util
import itertools
import statistics
import time

import torch
from torch.profiler import ProfilerActivity, profile

import peers
from atss.modeling import AnchorGrid, assigners, make_cell_anchors
from atss.modeling.assigners import ATSSAssigner

STRIDES = [8, 16, 32, 64, 128]
# Our implementation of every rule, in PyTorch, from k. IoU as in the paper's experiments: centres inside the object.
RULES = {
    "atss": lambda topk: ATSSAssigner(topk, "torch"),
    "iou": lambda topk: assigners.IoUAssigner(center_in_box=True),
    "scale_range": lambda topk: assigners.ScaleRangeAssigner(),
    "center_sampling": assigners.CenterSamplingAssigner,
    "topk_iou": assigners.TopKIoUAssigner,
}


def main():
    args = parse_arguments()
    device = torch.device(args.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    print(f"torch {torch.__version__}, {name}")
    results = {}
    for rule, num_anchors, (height, width), batch in itertools.product(args.rule, args.anchors, args.size, args.batch):
        prefix = "" if args.rule == ["atss"] else f"{rule}: "
        setting = f"{prefix}{batch} x {height}x{width}, {num_anchors} anchor(s) per location"
        grid = make_grid(height, width, ratios_of(num_anchors), device)
        write, launch = floors(grid, batch, args.seconds)
        print(f"\n{setting}, k = {args.topk}, {len(grid)} anchors per image")
        print(
            f"floors: writing the result {write / batch * 1e3:.4f} ms per image, a kernel launch {launch * 1e6:.1f} us"
        )
        print(" objects     implementation ms per image ms per batch  extra MB  faster than")
        others = other_implementations(args, rule, num_anchors)
        for num_objects in args.objects:
            boxes = random_boxes(batch, num_objects, height, width, args.seed, device)
            results[setting, num_objects] = measure(args, rule, grid, boxes, num_objects, others)
    print_growth(args, results)
    if args.plot:
        plot(results, "ATSS assigner" if args.rule == ["atss"] else "assigners", args.plot)


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objects", type=int, nargs="+", default=[1, 7, 20, 100, 500, 1000, 2000], help="an image")
    parser.add_argument("--batch", type=int, nargs="+", default=[16], help="images")
    parser.add_argument("--size", type=size, nargs="+", default=[(800, 1344)], metavar="HxW", help="of the images")
    parser.add_argument(
        "--anchors", type=int, nargs="+", default=[1], choices=range(1, 10), help="anchors per location"
    )
    parser.add_argument("--rule", nargs="+", default=["atss"], choices=RULES)
    parser.add_argument("--topk", type=int, default=9)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--paper", metavar="CHECKOUT", help="of the paper's repository, sfzhang15/ATSS")
    parser.add_argument("--no-naive", action="store_true", help="skip the full-matrix algorithm")
    parser.add_argument("--seconds", type=float, default=2.0, help="to spend on a figure, at least three calls")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plot", metavar="FILE", help="draw time against objects")
    return parser.parse_args()


def size(text):
    height, width = map(int, text.split("x"))
    return height, width


def ratios_of(num_anchors):
    return [2 ** (i - (num_anchors - 1) / 2) for i in range(num_anchors)]


def make_grid(height, width, ratios, device):
    shapes = [(-(-height // stride), -(-width // stride)) for stride in STRIDES]
    anchors = [anchors.to(device) for anchors in make_cell_anchors(STRIDES, aspect_ratios=ratios)]
    return AnchorGrid(shapes, STRIDES, anchors)


def random_boxes(batch, num_objects, height, width, seed, device):
    """Objects of 8 to 400 pixels, uniform in the logarithm of their sides, anywhere in the image."""
    generator, boxes = torch.Generator().manual_seed(seed), []
    for _ in range(batch):
        center = torch.rand(num_objects, 2, generator=generator) * torch.tensor([width, height])
        half = 4 * 50 ** torch.rand(num_objects, 2, generator=generator)
        boxes.append(torch.cat([center - half, center + half], dim=1).to(device))
    return boxes


def other_implementations(args, rule, num_anchors):
    """{name: function} of those of a rule that are asked for or installed, see `peers`."""
    others = {}
    if rule == "atss" and not args.no_naive:
        others["full matrix"] = peers.naive(args.topk)
    if args.paper and rule in peers.POSITIVE_TYPES:
        others["paper's code"] = peers.paper(args.paper, rule, args.topk, num_anchors)
    if rule == "atss" and importlib.util.find_spec("mmdet"):
        others["mmdet"] = peers.mmdet(args.topk, num_anchors)
    return others


def measure(args, rule, grid, boxes, num_objects, others):
    """Time and memory of every implementation on these boxes, a line for each; {name: seconds an image}."""
    few = boxes[: max(2, 1600 // num_objects)]
    runs = {"torch": (RULES[rule](args.topk), boxes)}
    if rule == "atss" and grid.device.type == "cuda":
        runs["triton"] = ATSSAssigner(args.topk, "triton"), boxes
        runs["triton in a graph"] = captured(runs["triton"][0], grid, boxes), boxes
    runs |= {name: (assign, few) for name, assign in others.items()}

    seconds, memory = {}, {}
    for name, (assign, given) in runs.items():
        try:
            memory[name] = extra_memory(assign, grid, given)
            seconds[name] = median_seconds(lambda a=assign, g=given: a(grid, g), grid.device, args.seconds) / len(given)
        except torch.OutOfMemoryError:
            print(f"{num_objects:>8} {name:>18} out of memory")
    for name, value in seconds.items():
        ratios = ", ".join(f"{o} {seconds[o] / value:.0f}x" for o in others if o in seconds and name not in others)
        if not others:
            ratios = "-"
        print(
            f"{num_objects:>8} {name:>18} {value * 1e3:>13.4f} {value * len(boxes) * 1e3:>11.3f} "
            f"{memory[name] / 2**20:>9.1f}  {ratios}".rstrip()
        )
    return seconds


def captured(assign, grid, boxes):
    """The call as a CUDA graph: what the GPU takes, without Python; on the way any wait for the device is an error."""
    assign(grid, boxes)
    with waits_are_errors():
        assign(grid, boxes)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        matches = assign(grid, boxes)
    graph.replay()
    if not torch.equal(matches, ATSSAssigner(assign.topk, "torch")(grid, boxes)):
        raise SystemExit("error: the two backends differ")
    return lambda grid, boxes: graph.replay()


@contextlib.contextmanager
def waits_are_errors():
    """Context in which PyTorch raises an error where the host waits for the GPU."""
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def median_seconds(run, device, seconds, in_a_row=1):
    """Median time of a call, over `seconds` and at least three measurements.

    Each measurement is of one call or of several `in_a_row`: the host is then ahead of a GPU, unless it is slower.
    """
    times, end = [], None
    while end is None or len(times) < 3 or (time.perf_counter() < end and len(times) < 1000):
        if device.type == "cuda":
            start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            start.record()
            for _ in range(in_a_row):
                run()
            stop.record()
            stop.synchronize()
            elapsed = start.elapsed_time(stop) / 1e3 / in_a_row
        else:
            begin = time.perf_counter()
            for _ in range(in_a_row):
                run()
            elapsed = (time.perf_counter() - begin) / in_a_row
        if end is None:  # the warm-up
            end = time.perf_counter() + seconds
        else:
            times.append(elapsed)
    return statistics.median(times)


def extra_memory(assign, grid, boxes):
    """The most bytes that a call has allocated at a time, besides what it returns."""
    assign(grid, boxes)
    if grid.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        result = assign(grid, boxes)
        after, peak = torch.cuda.memory_allocated(), torch.cuda.max_memory_allocated()
        del result
        return peak - before - (after - before)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as trace:
        result = assign(grid, boxes)
    del result
    events = [e for e in trace.profiler.kineto_results.events() if e.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak - held


def floors(grid, batch, seconds):
    """Lower bounds, in seconds: writing the result, and launching a kernel."""
    result, one = torch.empty(batch, len(grid), dtype=torch.int64), torch.ones(1)
    result, one = result.to(grid.device), one.to(grid.device)
    return [median_seconds(call, grid.device, seconds / 4) for call in (lambda: result.fill_(-1), lambda: one.add_(1))]


def print_growth(args, results):
    """How time grows with the objects, and with the image where several sizes were asked for."""
    print()
    for setting in dict.fromkeys(setting for setting, _ in results):
        if {100, 1000} <= set(args.objects):
            few, many = results[setting, 100], results[setting, 1000]
            ratios = ", ".join(f"{name} {many[name] / few[name]:.1f}x" for name in many if name in few)
            print(f"{setting}: from 100 to 1000 objects per image {ratios}")
    if len(args.size) > 1:
        sizes = min(args.size), max(args.size)
        smallest, largest = besides_writing(args, sizes)
        print(
            f"{args.rule[0] + ': ' if args.rule != ['atss'] else ''}{args.batch[0]} images, "
            f"{args.objects[0]} object(s) each: {largest / smallest:.2f}x from {sizes[0]} to "
            f"{sizes[1]}, the writing of the result aside"
        )


def besides_writing(args, sizes):
    """Seconds of a call less those of filling a new result, for each size; the objects lie in the smallest."""
    device, differences = torch.device(args.device), [[] for _ in sizes]
    # For ATSS the backend that the device has.
    assigner = ATSSAssigner(args.topk) if args.rule[0] == "atss" else RULES[args.rule[0]](args.topk)
    boxes = random_boxes(args.batch[0], args.objects[0], *min(sizes), args.seed, device)
    grids = [make_grid(*size, ratios_of(args.anchors[0]), device) for size in sizes]
    for _ in range(50):
        for grid, found in zip(grids, differences, strict=True):
            call = median_seconds(lambda g=grid: assigner(g, boxes), device, 0)
            write = median_seconds(lambda g=grid: torch.full((len(boxes), len(g)), -1, device=device), device, 0)
            found.append(call - write)
    return [statistics.median(found) for found in differences]


def plot(results, title, file):
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    lines = {}
    for (setting, num_objects), seconds in results.items():
        for name, value in seconds.items():
            lines.setdefault((setting, name), []).append((num_objects, value * 1e3))
    several = len({setting for setting, _ in lines}) > 1
    figure, axes = pyplot.subplots(figsize=(7, 4.5), layout="constrained")
    for (setting, name), points in lines.items():
        axes.plot(*zip(*sorted(points), strict=True), marker="o", label=f"{name}, {setting}" if several else name)
    axes.set(xscale="log", yscale="log", xlabel="objects per image", ylabel="milliseconds per image")
    axes.set_title(title if several else f"{title}, {next(iter(lines))[0]}", fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(file, dpi=120)
    print(f"drawn: {file}")


if __name__ == "__main__":
    main()
