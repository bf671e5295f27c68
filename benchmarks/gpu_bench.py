"""What the measurements of `gpu_parts.py` share: time that is left, results, errors, and figures of a call."""

import gc
import json
import re
import time
import traceback

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from assigner import median_seconds, waits_are_errors
from gpu import RESULT
from operations import Count


class Bench:
    """What the measurements of a part share: the settings, the time that is left, and where results go.

    Args:
        device: "cuda" or "cpu".
        quick: whether sizes are tiny, for a rehearsal.
        until: when the part is ended, in seconds since the epoch.
    """

    def __init__(self, device, quick, until):
        self.device, self.quick, self.until = torch.device(device), quick, until
        self.on_gpu, self.failed = self.device.type == "cuda", False
        # How long a time is measured.
        self.seconds = 0 if quick else 0.5

    def left(self):
        return self.until - time.time()

    def report(self, name, **values):
        print(RESULT + json.dumps({"name": name, **values}), flush=True)

    def attempt(self, name, measure, *args, needs=3):
        """Report what `measure(*args)` returns, a dict, or its error; return it, None if it failed or was skipped.

        Args:
            name: of the result.
            measure: function.
            needs: seconds without which it is skipped.
        """
        if self.left() < needs:
            self.report(name, skipped=f"{self.left():.0f} s are left, it takes about {needs} s")
            return None
        start, values = time.monotonic(), None
        try:
            values = measure(*args)
            wrong = {"error": "not what was expected"} if values.get("equal") is False else {}
            self.failed |= bool(wrong)
            self.report(name, **values, **wrong, took_s=round(time.monotonic() - start, 1))
        except Exception as error:
            self.failed = True
            traceback.print_exc()
            self.report(name, error=f"{type(error).__name__}: {first_line(error)}")
        gc.collect()
        if self.on_gpu:
            torch.cuda.synchronize()  # raises if the GPU is of no more use to this process
            torch.cuda.empty_cache()
        return values

    def only_on_gpu(self, name, measure, *args):
        if self.on_gpu:
            return self.attempt(name, measure, *args)
        self.report(name, skipped="needs a CUDA GPU")
        return None

    def median_us(self, call, in_a_row=1):
        return 1e6 * median_seconds(call, self.device, self.seconds, in_a_row)

    def peak_gb(self, call):
        """The most memory in use during a call, in GB (1e9 bytes); nothing on a CPU."""
        if not self.on_gpu:
            call()
            return {}
        torch.cuda.reset_peak_memory_stats()
        call()
        torch.cuda.synchronize()
        return {"peak_gb": torch.cuda.max_memory_allocated() / 1e9}

    def launches(self, call):
        """What a call has the GPU do: numbers of kernels and of copies and fills; number and microseconds by kernel.

        On a CPU the number of PyTorch's operations, which is about that of the kernels. Measure times before: once it
        was used, the profiler may delay every launch.
        """
        call()
        if not self.on_gpu:
            with Count() as count:
                call()
            return {"operations": count.operations}
        torch.cuda.synchronize()
        with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as trace:
            call()
            torch.cuda.synchronize()
        return summary(event for event in trace.events() if event.device_type == DeviceType.CUDA)

    def waits(self, call):
        """Whether the host waits for the GPU in a call: "none", or what PyTorch says of the first wait."""
        try:
            with waits_are_errors():
                call()
        except RuntimeError as error:
            traceback.print_exc()
            return {"waits": first_line(error)}
        return {"waits": "none"}


def summary(events):
    """Numbers and times of what the profiler has recorded on the GPU, see `Bench.launches`."""
    events, by_name = list(events), {}
    kernels = [event for event in events if not event.name.startswith(("Memcpy", "Memset"))]
    for event in kernels:
        name = re.split(r"[<(]", event.name.removeprefix("void "))[0][-60:]
        number, us = by_name.get(name, (0, 0.0))
        by_name[name] = number + 1, us + event.time_range.elapsed_us()
    if not events:
        return {"kernels": "unknown: the profiler has recorded nothing on the GPU"}
    return {
        "kernels": len(kernels),
        "copies_and_fills": len(events) - len(kernels),
        "gpu_us": sum(us for _, us in by_name.values()),
        "by_name": dict(sorted(by_name.items(), key=lambda item: -item[1][1])),
    }


def first_line(error):
    return (str(error).strip().splitlines() or [""])[0][:300]
