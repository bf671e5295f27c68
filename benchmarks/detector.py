"""Time of a training step and of inference beside Detectron2's RetinaNet and FCOS, by part, alternating in one process.

    python benchmarks/detector.py --batch 2 --size 512x640

Medians of all rounds in milliseconds, and the ratio to each other detector. All models are R-50 with random weights, on
the same random images with the same random objects.
"""

import argparse
import json
import time
from statistics import median
from typing import NamedTuple

import torch
from detectron2.utils.events import EventStorage

from assigner import size
from atss.modeling import for_inference
from detectors import NAMES, build, parts, random_batch, wrap_assignment

PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}


class Clock:
    """Adds up the seconds of named parts. Time in a part within another one counts for the inner part alone."""

    def __init__(self, device):
        self.device = torch.device(device)
        self.seconds = {}
        self.stack = []

    def part(self, name):
        return Part(self, name)

    def enter(self, name):
        self._stop()
        self.stack.append(name)
        self.start = time.perf_counter()

    def leave(self):
        self._stop()
        self.stack.pop()
        self.start = time.perf_counter()

    def _stop(self):
        if self.stack:
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
            name = self.stack[-1]
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - self.start


class Part(NamedTuple):
    """A part of a clock's time, as a context that can be entered again and again."""

    clock: Clock
    name: str

    def __enter__(self):
        self.clock.enter(self.name)

    def __exit__(self, *error):
        self.clock.leave()


class Runner:
    """A detector with its optimizer: runs a step or an inference, by part; a whole one without waits in between."""

    def __init__(self, name, args):
        self.model = build(name, args.classes, args.device)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=1e-6, momentum=0.9)
        self.batch = random_batch(args.batch, args.size, args.objects, args.classes)
        self.device, self.precision = args.device, PRECISIONS[args.precision]
        self.clock = Clock(args.device)

    def separate_assignment(self):
        """Have the clock tell label assignment from the losses; a whole step then waits for it."""
        wrap_assignment(self.model, self.clock.part("assignment"))

    def _autocast(self):
        return torch.autocast(torch.device(self.device).type, self.precision, enabled=self.precision is not None)

    def whole_step(self):
        """A training step: the losses."""
        with self._autocast():
            losses = self.model(self.batch)
        sum(losses.values()).backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return losses

    @torch.no_grad()
    def whole_inference(self):
        """Detection in a batch of images: what the model returns."""
        with self._autocast():
            return self.model(self.batch)

    def step(self):
        """A training step: seconds by part."""
        with self._autocast():
            predictions, losses_of, _ = self._forward()
            with self.clock.part("losses"):
                losses = losses_of(predictions)
        with self.clock.part("backward"):
            sum(losses.values()).backward()
        with self.clock.part("optimizer"):
            self.optimizer.step()
            self.optimizer.zero_grad()
        return self.clock.seconds

    @torch.no_grad()
    def infer(self):
        """Detection in a batch of images: seconds by part."""
        with self._autocast():
            predictions, _, detect = self._forward()
            with self.clock.part("post-processing"):
                detect(predictions)
        return self.clock.seconds

    def _forward(self):
        self.clock.seconds = {}
        with self.clock.part("backbone"):
            images, features = self.preprocess_and_backbone()
        with self.clock.part("head"):
            predictions = self.model.head(features)
        instances = [x["instances"].to(self.device) for x in self.batch]
        return predictions, *parts(self.model, images, features, instances)

    def preprocess_and_backbone(self):
        preprocess = self.model.preprocess if hasattr(self.model, "preprocess") else self.model.preprocess_image
        names = self.model.in_features if hasattr(self.model, "in_features") else self.model.head_in_features
        images = preprocess(self.batch)
        features = self.model.backbone(images.tensor)
        return images, [features[name] for name in names]


def main():
    args = parse_arguments()
    device = torch.device(args.device)
    machine = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} CPU threads"
    print(f"torch {torch.__version__}, {machine}, {args.precision}; {args.batch} x {args.size[0]}x{args.size[1]}, "
          f"{args.objects} objects, {args.classes} classes")  # fmt: skip
    runners = {name: Runner(name, args) for name in args.detectors}
    for runner in runners.values():
        runner.separate_assignment()
    results = {}
    with EventStorage():
        for what in args.measure:
            for name, runner in runners.items():
                runner.model.train(what == "step")
                if what == "infer" and name == "atss":
                    runner.model = for_inference(runner.model)  # as evaluation, demo and `Predictor` do
                getattr(runner, what)()
            rounds = {name: [] for name in runners}
            peaks = dict.fromkeys(runners, 0)
            for _ in range(args.rounds):
                for name, runner in runners.items():
                    if device.type == "cuda":
                        torch.cuda.reset_peak_memory_stats(device)
                    rounds[name].append(getattr(runner, what)())
                    if device.type == "cuda":
                        peaks[name] = max(peaks[name], torch.cuda.max_memory_allocated(device))
            results[what] = summarize(what, rounds, peaks)
    if args.json:
        with open(args.json, "w", encoding="utf-8") as file:
            json.dump(
                {"machine": machine, "torch": torch.__version__, **vars(args), "results": results}, file, indent=1
            )


def summarize(what, rounds, peaks):
    """Print a table of medians; return them by detector and part, in milliseconds."""
    names, table = list(rounds), {}
    for name, seconds in rounds.items():
        table[name] = {part: 1e3 * median(by_part[part] for by_part in seconds) for part in seconds[0]}
        table[name]["total"] = 1e3 * median(sum(by_part.values()) for by_part in seconds)
        if peaks[name]:
            table[name]["peak MB"] = peaks[name] / 1e6
    rows = list(dict.fromkeys(row for by_part in table.values() for row in by_part))
    print(f"\n{'training step' if what == 'step' else 'inference':16}" + "".join(f"{name:>12}" for name in names))
    for row in rows:
        print(f"{row:16}" + "".join(f"{table[name].get(row, 0):12.1f}" for name in names))
    first = table[names[0]]["total"]
    print(f"{names[0] + ' / ...':16}" + "".join(f"{first / table[name]['total']:12.3f}" for name in names), flush=True)
    return table


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--detectors", nargs="+", default=list(NAMES), choices=NAMES)
    parser.add_argument("--measure", nargs="+", default=["step", "infer"], choices=["step", "infer"])
    parser.add_argument("--batch", type=int, default=2, help="images")
    parser.add_argument("--size", type=size, default=(512, 640), metavar="HxW", help="of the images")
    parser.add_argument("--objects", type=int, default=20, help="per image")
    parser.add_argument("--classes", type=int, default=80)
    parser.add_argument("--precision", default="float32", choices=PRECISIONS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--json", metavar="FILE", help="write the medians")
    return parser.parse_args()


if __name__ == "__main__":
    main()
