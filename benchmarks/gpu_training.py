"""The part "training" of `gpu.py`: the demo's model by its command, and in two processes on one GPU.

Run as a command, with torchrun's environment variables, this is one of the two processes.
"""

import datetime
import json
import math
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
import torch.distributed as dist
from detectron2.modeling import build_model

from atss.config import load_config
from atss.data.shapes import generate
from atss.engine.launch import free_port
from atss.utils.comm import parallel
from detectors import random_batch

ROOT = Path(__file__).parents[1]
CONFIG = str(ROOT / "configs/atss_R_10_FPN_demo.yaml")
# Steps of each of two processes, and the seconds that they have.
STEPS, SECONDS = 5, 60


def training(bench):
    """Iterations of `train_net.py` with AMP on generated images; steps of two processes on one device."""
    with tempfile.TemporaryDirectory() as folder:
        bench.attempt("demo with AMP", train_demo, bench, Path(folder), needs=10)
        # NCCL refuses two processes on one GPU, unless the GPU is divided.
        if bench.on_gpu:
            try:
                bench.report("two processes, nccl", **two_processes(bench, Path(folder), "nccl"))
                return
            except ProcessError as error:
                bench.report("two processes, nccl", refused=str(error))
        bench.attempt("two processes, gloo", two_processes, bench, Path(folder), "gloo", needs=15)


class ProcessError(Exception):
    """A process that has failed, in a line."""


def train_demo(bench, folder):
    """Losses, seconds per iteration, and whether the command succeeded."""
    iterations, images = (4, 8) if bench.quick else (30, 240)
    generate(folder / "images", images, seed=1)
    settings = {
        "DATASETS.REGISTER": [["gpu_benchmark", f"{folder / 'images'}.json", str(folder / "images")]],
        "DATASETS.TRAIN": "('gpu_benchmark',)", "DATASETS.TEST": "()", "OUTPUT_DIR": folder / "output",
        "MODEL.DEVICE": bench.device.type, "SOLVER.MAX_ITER": iterations, "SOLVER.AMP.ENABLED": bench.on_gpu,
        "TEST.EVAL_PERIOD": 0, "SEED": 1,
    }  # fmt: skip
    command = [
        sys.executable,
        "train_net.py",
        "--config-file",
        CONFIG,
        *(str(x) for pair in settings.items() for x in pair),
    ]
    start = time.monotonic()
    with open(folder / "output.txt", "w+", encoding="utf-8") as output:
        try:
            status = subprocess.run(
                command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT, timeout=max(10, bench.left() - 20)
            ).returncode
        except subprocess.TimeoutExpired:
            status = "none: its time was over"
        output.seek(0)
        lines = output.read().splitlines()
    metrics = folder / "output/metrics.json"
    records = (
        [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()] if metrics.exists() else []
    )
    records = [record for record in records if "total_loss" in record]
    if status != 0 or not records:
        print(*lines[-40:], sep="\n", flush=True)
        raise ProcessError(f"exit status {status}, {len(records)} records in metrics.json")
    last = records[-1]
    result = {"exit_status": status, "iterations": last["iteration"] + 1, "command_s": time.monotonic() - start}
    # Medians over 20 iterations.
    result |= {"losses": [record["total_loss"] for record in records]}
    result |= {f"{name}_s": last[name] for name in ("time", "data_time") if name in last}
    assert all(map(math.isfinite, result["losses"])), f"losses {result['losses']}"
    skipped = [line for line in lines if "The batch is skipped" in line]
    return result | {"skipped_batches": len(skipped)}


def two_processes(bench, folder, backend):
    """Losses of two processes of one model on one device, after it is clear that they agree.

    Raises:
        ProcessError: one has failed, or they do not agree.
    """
    environment = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2"}
    files = [folder / f"{backend}_{rank}.txt" for rank in range(2)]
    # If the first backend hangs, there is time for the second.
    seconds = min(SECONDS, bench.left() / 2)
    end = time.monotonic() + seconds
    command, started = [sys.executable, "-u", __file__, backend, bench.device.type], []
    for rank, file in enumerate(files):
        with open(file, "w", encoding="utf-8") as output:
            started.append(
                subprocess.Popen(
                    command, env={**environment, "RANK": str(rank)}, stdout=output, stderr=subprocess.STDOUT
                )
            )
    # The first failure ends the other, which would wait for it.
    while any(process.poll() is None for process in started) and not any(process.poll() for process in started):
        if time.monotonic() > end:
            break
        time.sleep(0.1)
    for process in started:
        process.kill()
        process.wait()
    texts = [file.read_text(encoding="utf-8", errors="replace") for file in files]
    if any(process.returncode for process in started):
        for text in texts:
            print(text[-3000:], flush=True)
        raise ProcessError(reason(texts) or f"not done within {seconds:.0f} s")
    first, second = (json.loads(text.splitlines()[-1]) for text in texts)
    result = {"losses": first["losses"], "losses_of_other": second["losses"]}
    same = [first["of_same_images"], second["of_same_images"]]
    if not all(map(math.isfinite, [*first["losses"], *second["losses"], *same])):
        raise ProcessError(f"losses are not finite: {result}")
    if not math.isclose(*same, rel_tol=1e-4) or not math.isclose(first["weights"], second["weights"], rel_tol=1e-6):
        raise ProcessError(f"the models differ: {first}, {second}")
    return result | {"of_same_images": same}


def reason(texts):
    """The line that says why one of several processes has failed; None if they have printed none."""
    lines = [line.strip() for text in texts for line in text.splitlines() if line.strip()]
    telling = [line for line in lines if re.search("duplicate gpu", line, re.IGNORECASE)]
    errors = [line for line in lines if re.match(r"[\w.]*(Error|Exception)\b", line)]
    return next((line[:300] for line in [*telling, *errors, *lines[-1:]]), None)


def run_process(backend, device):
    """Train on images of this process alone; then take the loss of images that all processes have."""
    rank = int(os.environ["RANK"])
    if device == "cuda":
        torch.cuda.set_device(0)
    dist.init_process_group(backend, timeout=datetime.timedelta(seconds=SECONDS))
    nothing = ["DATASETS.TRAIN", "()", "DATASETS.TEST", "()", "MODEL.ATSS.NUM_CLASSES", "6"]
    torch.manual_seed(0)
    model = parallel(build_model(load_config(CONFIG, ["MODEL.DEVICE", device, *nothing])))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.001, momentum=0.9)
    losses = []
    for number in range(STEPS):
        loss = sum(model(random_batch(4, (160, 192), 5, 6, seed=1000 * rank + 10 * number)).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    with torch.no_grad():
        same = sum(model(random_batch(4, (160, 192), 5, 6, seed=5000)).values()).item()
    weights = sum(parameter.double().norm().item() for parameter in model.parameters())
    dist.destroy_process_group()
    print(json.dumps({"losses": losses, "of_same_images": same, "weights": weights}), flush=True)


if __name__ == "__main__":
    run_process(*sys.argv[1:])
