"""Count what runs after the head's convolutions: operations, bytes read and written, waits for the device.

    python benchmarks/operations.py --images 2 --size 800x1344 --objects 20
    python benchmarks/operations.py --rounds 9    # and the time

The counts are PyTorch's dispatcher's, so they are exact and the same on every machine: a GPU launches a kernel for each
operation. Views and allocations are not counted. A wait is an operation whose result the host needs before it can go
on. The losses of this project are one operator, which reads its inputs and writes its outputs once; on CPUs it works in
blocks that fit a core's cache. Times are medians of rounds in which the detectors alternate: of losses with assignment,
forward and backward, and of post-processing.
"""

import argparse
import time
from statistics import median

import torch
from detectron2.structures import ImageList
from detectron2.utils.events import EventStorage
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from assigner import size
from detectors import NAMES, STRIDES, build, parts, random_batch, wrap_assignment

# Operations that have to know a value, or a number of values, on the host.
WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_dim", "nms", "bincount", "equal")
# Operations that read no more of their first argument than they return.
GATHERING = ("gather", "index", "index_select", "embedding")


class Count(TorchDispatchMode):
    """Counts the operations inside of the context: `operations`, `bytes`, `waits`."""

    def __init__(self):
        super().__init__()
        self.operations = self.bytes = self.waits = 0

    def __isub__(self, other):
        """Without what another one has counted in between."""
        self.operations -= other.operations
        self.bytes -= other.bytes
        self.waits -= other.waits
        return self

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        name = function._schema.name.split("::")[1]
        # A view only returns aliases of its arguments.
        if any(value.alias_info and not value.alias_info.is_write for value in function._schema.returns):
            return result
        if name.startswith(("empty", "new_empty")):
            return result
        inputs = {key: value for key, value in (kwargs or {}).items() if key != "out"}
        read, written = tensors((args, inputs)), tensors(result)
        if not read and not written:
            return result
        masked = name in ("index", "index_put_", "index_put") and any(t.dtype == torch.bool for t in tensors(args[1]))
        self.operations += 1
        self.waits += name in WAITING or masked
        sizes = [size_of(tensor) for tensor in read]
        if name in GATHERING:
            sizes[0] = min(sizes[0], sum(map(size_of, written)))
        self.bytes += sum(sizes) + sum(map(size_of, written))
        return result


def tensors(values):
    return [value for value in tree_leaves(values) if isinstance(value, torch.Tensor)]


def size_of(tensor):
    """Bytes of a tensor; of an expanded one, those that are in memory."""
    number = 1
    for length, stride in zip(tensor.shape, tensor.stride(), strict=True):
        number *= length if stride else min(length, 1)
    return number * tensor.element_size()


class Replay(nn.Module):
    """Stands for a convolution that predicts: returns feature maps, one after another."""

    def __init__(self, maps):
        super().__init__()
        self.maps = maps
        self.calls = 0

    def forward(self, _):
        self.calls += 1
        return self.maps[(self.calls - 1) % len(self.maps)]


def replace_convolutions(model, images, shapes):
    """Replace the head's convolutions by predictions with a gradient; a logit of 200 exceeds the threshold."""
    head, device = model.head, next(model.parameters()).device
    generator = torch.Generator(device).manual_seed(0)
    towers = ("class_tower", "box_tower") if hasattr(head, "class_tower") else ("cls_subnet", "bbox_subnet")
    for name in towers:
        setattr(head, name, nn.Identity())
    for name in ("class_logits", "box_deltas", "centerness", "cls_score", "bbox_pred", "ctrness"):
        if hasattr(head, name):
            channels = getattr(head, name).out_channels
            center, spread = (-6, 1.2) if name in ("class_logits", "cls_score") else (0.5, 0.2)
            sizes = [(images, channels, *shape) for shape in shapes]
            maps = [torch.randn(size, generator=generator, device=device) * spread + center for size in sizes]
            format = getattr(model, "memory_format", torch.contiguous_format)
            setattr(head, name, Replay([values.to(memory_format=format).requires_grad_() for values in maps]))


def main():
    args = parse_arguments()
    height, width = args.size
    print(f"{args.images} images of {height}x{width}, {args.objects} objects, {args.classes} classes, per batch")
    print(f"{'':10}" + "".join(f"{part:>22}" for part in ("assignment", "losses", "backward", "post-processing")))
    print(f"{'':10}" + f"{'ops':>8}{'GB':>8}{'waits':>6}" * 4)
    for name in args.detectors:
        counts = count(name, args)
        print(f"{name:10}" + "".join(f"{c.operations:8}{c.bytes / 1e9:8.3f}{c.waits:6}" for c in counts), flush=True)
    if args.rounds:
        print_times({name: prepare(name, args) for name in args.detectors}, args)


def prepare(name, args):
    """A detector without convolutions; three functions: predictions, their losses, their detections; its leaves."""
    model = build(name, args.classes, args.device)
    batch = random_batch(args.images, args.size, args.objects, args.classes)
    images = ImageList.from_tensors([x["image"] for x in batch], 32)
    shapes = [(-(-images.tensor.shape[2] // stride), -(-images.tensor.shape[3] // stride)) for stride in STRIDES]
    replace_convolutions(model, args.images, shapes)
    features = [torch.empty(args.images, 1, *shape, device=args.device) for shape in shapes]
    instances = [x["instances"].to(args.device) for x in batch]
    losses_of, detect = parts(model, images, features, instances)
    leaves = [values for module in model.head.modules() if isinstance(module, Replay) for values in module.maps]
    return model, lambda: model.head(features), losses_of, detect, leaves


def count(name, args):
    """Counts of a detector: label assignment, losses without it, gradient of the predictions, post-processing."""
    model, predict, losses_of, detect, leaves = prepare(name, args)
    assignment, forward, backward, inference = Count(), Count(), Count(), Count()
    with EventStorage():
        losses_of(predict())  # what is computed once is not counted
        wrap_assignment(model, assignment)
        with forward:
            losses = losses_of(predict())
        with backward:
            torch.autograd.grad(sum(losses.values()), leaves)
        with torch.no_grad():
            predictions = predict()
            with inference:
                detect(predictions)
    forward -= assignment
    return assignment, forward, backward, inference


def print_times(detectors, args):
    """Print the milliseconds of the losses and of post-processing, medians of alternating rounds."""

    def learn(predict, losses_of, detect, leaves):
        torch.autograd.grad(sum(losses_of(predict()).values()), leaves)

    @torch.no_grad()
    def infer(predict, losses_of, detect, leaves):
        detect(predict())

    for title, run in {"losses": learn, "post-processing": infer}.items():
        seconds = {name: [] for name in detectors}
        for _ in range(args.rounds + 1):
            for name, (_, *functions) in detectors.items():
                with EventStorage():
                    start = time.perf_counter()
                    run(*functions)
                if torch.device(args.device).type == "cuda":
                    torch.cuda.synchronize()
                seconds[name].append(time.perf_counter() - start)
        times = ", ".join(f"{name} {1e3 * median(values[1:]):.1f} ms" for name, values in seconds.items())
        print(f"{title}: {times}", flush=True)


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--detectors", nargs="+", default=NAMES, choices=NAMES)
    parser.add_argument("--images", type=int, default=2)
    parser.add_argument("--size", type=size, default=(800, 1344), metavar="HxW", help="of the images")
    parser.add_argument("--objects", type=int, default=20, help="per image")
    parser.add_argument("--classes", type=int, default=80)
    parser.add_argument("--rounds", type=int, default=0, help="to measure times in")
    parser.add_argument("--device", default="cpu")
    return parser.parse_args()


if __name__ == "__main__":
    main()
