"""All that only a GPU can show, in one command of a few minutes, the most important first.

    python benchmarks/gpu.py --out gpu.json
    python benchmarks/gpu.py --parts assigner losses --minutes 2
    python benchmarks/gpu.py --device cpu --quick              # a rehearsal, at tiny sizes

tests       all tests marked gpu
assigner    time of a batch, in a CUDA graph and as calls, beside the torch backend and the full matrix; equality; waits
losses      kernels, time, and bytes against the bandwidth of a copy, beside RetinaNet and FCOS
step        training step of R-50, 16 x 800x1333, in float32 (TF32) and bfloat16, beside RetinaNet and FCOS
inference   one image and 16: plain, folded, compiled
training    30 iterations of the demo's model with AMP; two processes on one GPU

Every part is a process of its own, see `gpu_parts.py`: neither an error nor a hang of one concerns the others. Results
are printed, and written to the JSON file, as they come. A part that fails is reported with the end of its output; so is
one whose time is over. Time that a part leaves goes to the later ones; parts that no longer fit are skipped.
"""

import argparse
import collections
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

# Seconds of each part when the whole takes eight minutes.
SHARES = {"tests": 105, "assigner": 50, "losses": 60, "step": 105, "inference": 95, "training": 65}
# A part with less time than that would do nothing but import PyTorch.
MIN_SECONDS = 20
# What a line of a part's output begins with if it is a result, a JSON object with `name`.
RESULT = "result: "
# Lines of output that are kept of a part that fails.
TAIL = 60


def main(arguments=None):
    args = parse_arguments(arguments)
    deadline = time.monotonic() + 60 * args.minutes
    parts = [name for name in SHARES if name in args.parts]
    # In the usual folder, code that a killed part was about to write would be an error for later runs.
    cache = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache.name
    found = {"device": args.device, "quick": args.quick, "minutes": args.minutes, "machine": {}, "parts": {}}
    for number, name in enumerate(parts):
        left = deadline - time.monotonic()
        limit = max(MIN_SECONDS, left * SHARES[name] / sum(SHARES[later] for later in parts[number:]))
        print(f"\n{name}: at most {limit:.0f} s", flush=True)
        if left < MIN_SECONDS:
            found["parts"][name] = {"status": "skipped", "reason": f"{left:.0f} s are left"}
        else:
            part = found["parts"][name] = {"status": "running", "results": {}}
            run_part(part, command(name, limit, args), environment(args), limit, lambda: write(args.out, found))
            found["machine"] |= part["results"].pop("machine", {})
        print(f"{name}: {describe(found['parts'][name])}", flush=True)
        write(args.out, found)
    print("\n" + "\n".join(f"{name:10} {describe(part)}" for name, part in found["parts"].items()))
    print(f"written: {args.out}", flush=True)
    return 0 if all(part["status"] == "done" for part in found["parts"].values()) else 1


def parse_arguments(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", default=list(SHARES), choices=SHARES)
    parser.add_argument("--minutes", type=float, default=8, help="for all parts together")
    parser.add_argument("--out", default="gpu.json", metavar="FILE", help="results, as JSON")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--quick", action="store_true", help="tiny sizes and few rounds")
    return parser.parse_args(arguments)


def command(name, limit, args):
    """The command line of a part that has `limit` seconds."""
    script = str(Path(__file__).with_name("gpu_parts.py"))
    flags = ["--device", args.device, "--until", str(time.time() + limit), *(["--quick"] if args.quick else [])]
    return [sys.executable, "-u", "-X", "faulthandler", script, name, *flags]


def environment(args):
    """Environment variables of a part."""
    # It finds this checkout's package, whether or not that is installed.
    paths = [str(Path(__file__).parents[1] / "projects/ATSS"), os.environ.get("PYTHONPATH")]
    few_threads = {"OMP_NUM_THREADS": "1"} if args.quick and args.device == "cpu" else {}
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), **few_threads}


def run_part(part, command, environment, limit, save):
    """Run a part, and fill in its `status`, `seconds`, `results` and, if it fails, the end of its `output`.

    Args:
        part: dict with `results`, a dict.
        command, environment: of its process.
        limit: seconds after which its processes are killed.
        save: called after every result.
    """
    start, tail = time.monotonic(), collections.deque(maxlen=TAIL)
    process = subprocess.Popen(
        command, cwd=Path(__file__).parents[1], env=environment, start_new_session=True, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
    )  # fmt: skip
    reader = threading.Thread(target=read, args=(process.stdout, part["results"], tail, save), daemon=True)
    reader.start()
    try:
        status = process.wait(limit)
    except subprocess.TimeoutExpired:
        status = None
    finally:  # what it has started goes with it, also after Ctrl-C
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    reader.join(5)
    part["seconds"] = round(time.monotonic() - start, 1)
    part["status"] = "out of time" if status is None else "failed" if status else "done"
    if status != 0:
        part |= {"exit_status": status, "output": list(tail)}


def read(lines, results, tail, save):
    """Print the results among the lines of a part's output, and collect them and the last lines."""
    for line in lines:
        line = line.rstrip("\n")
        try:
            result = json.loads(line.removeprefix(RESULT)) if line.startswith(RESULT) else None
        except ValueError:  # cut off, or mixed with the output of another process
            result = None
        if result is None:
            tail.append(line)
            continue
        name = result.pop("name")
        results[name] = result
        print(f"  {name}: " + ", ".join(f"{key} {short(value)}" for key, value in result.items()), flush=True)
        save()


def short(value):
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return "(" + ", ".join(f"{key} {short(inner)}" for key, inner in value.items()) + ")"
    return str(value)


def describe(part):
    """The outcome of a part in a line."""
    failed = [name for name, result in part.get("results", {}).items() if "error" in result]
    words = [part["status"], part.get("reason"), f"{part['seconds']} s" if "seconds" in part else None]
    if failed:
        words.append(f"failed: {'; '.join(failed)}")
    elif part["status"] in ("failed", "out of time") and part["output"]:
        words.append(next((line for line in reversed(part["output"]) if line.strip()), ""))
    return ", ".join(word for word in words if word)


def write(path, found):
    """Replace the file by `found` as JSON, completely or not at all."""
    temporary = Path(f"{path}.new")
    with open(temporary, "w", encoding="utf-8") as file:
        json.dump(found, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the part that runs ends, too
    sys.exit(main())
