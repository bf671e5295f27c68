#!/usr/bin/env python
"""Kill and resume a training many times; check that it ends with the weights of an undisturbed one.

    python tools/soak.py --rounds 50

Every round resumes the training, waits for a random time and sends SIGKILL to the launcher, one of the processes or
one of their data workers. Before some rounds the newest checkpoint is truncated to a random length. The model is the
demo's with fewer channels, the images are generated.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import torch

from atss.checkpoints.files import last_name
from atss.data.shapes import generate
from atss.errors import InputError, one_line_errors

ROOT = Path(__file__).parent.parent
MODEL = {
    "MODEL.RESNETS.STEM_OUT_CHANNELS": 8, "MODEL.RESNETS.RES2_OUT_CHANNELS": 8, "MODEL.FPN.OUT_CHANNELS": 32,
    "MODEL.ATSS.NUM_CONVS": 1, "MODEL.DEVICE": "cpu", "SOLVER.IMS_PER_BATCH": 4, "SOLVER.EMA_DECAY": 0.99, "SEED": 1,
}  # fmt: skip
# Seconds in which all processes must end after one of them was killed; then they are killed, too.
PATIENCE = 60


def soak(folder, rounds, processes=2, iterations=None, cut_every=5, seed=0):
    """Run both trainings in subfolders of the new folder `folder`.

    Args:
        rounds (int): number of times to kill the launcher or a process; data workers are killed in addition.
        processes (int): processes of the training.
        iterations (int): iterations of the training, 16 per round by default.
        cut_every (int): number of rounds from one truncated checkpoint to the next, 0 for none.
        seed (int): decides what is killed when.

    Returns:
        dict: how often what was killed or truncated, the number of values in the last checkpoint, and how many of them
        differ from those of the undisturbed training.
    """
    folder, rng = Path(folder), random.Random(seed)
    folder.mkdir(parents=True)
    for part, number in (("train", 24), ("val", 4)):
        generate(folder / part, number, seed=number)
    iterations = iterations or 16 * rounds
    command, is_launched = training(folder, processes, iterations), processes > 1

    started = time.time()
    if Run(command, folder / "undisturbed", is_launched).wait():
        raise InputError(f"{folder}/undisturbed.log: the undisturbed training has failed")
    result = {"seconds undisturbed": round(time.time() - started, 1), "iterations": iterations}

    counts = dict.fromkeys(("launcher", "process", "data worker", "truncated", "killed by hand"), 0)
    output = folder / "disturbed"
    done = 0
    while done < rounds and not (output / "model_final.pth").exists():
        if cut_every and done % cut_every == cut_every - 1:
            counts["truncated"] += truncate_newest(output, rng)
        run = Run(command, output, is_launched)
        victim = "data worker"
        while victim == "data worker" and run.is_running():
            run.wait_for_workers()
            time.sleep(rng.uniform(0, 3))
            victim = rng.choice(("launcher", "process", "process", "data worker"))
            if not run.kill(victim, rng):
                break
            counts[victim] += 1
        counts["killed by hand"] += run.end()
        done += 1
        print(f"round {done}: {victim} killed at {progress(output)} of {iterations} iterations", flush=True)
    if Run(command, output, is_launched).wait():
        raise InputError(f"{output}.log: the disturbed training has failed")
    values, different = compare(folder / "undisturbed/model_final.pth", output / "model_final.pth")
    return {**result, "rounds": done, **counts, "values": values, "different": different}


def training(folder, processes, iterations):
    entries = [[f"soak_{part}", str(folder / f"{part}.json"), str(folder / part)] for part in ("train", "val")]
    settings = {
        **MODEL,
        "DATASETS.REGISTER": entries, "DATASETS.TRAIN": "('soak_train',)", "DATASETS.TEST": "('soak_val',)",
        "DATALOADER.NUM_WORKERS": 2, "SOLVER.MAX_ITER": iterations, "SOLVER.CHECKPOINT_PERIOD": 3,
        "TEST.EVAL_PERIOD": 30,
    }  # fmt: skip
    return [
        sys.executable, str(ROOT / "train_net.py"), "--config-file", str(ROOT / "configs/atss_R_10_FPN_demo.yaml"),
        "--resume", "--num-gpus", str(processes), "--dist-url", "auto",
        *(str(text) for pair in settings.items() for text in pair),
    ]  # fmt: skip


class Run:
    """A running training, in a process group of its own.

    `command` is the command line without OUTPUT_DIR, which is `output`. `is_launched` says whether it launches the
    processes of the training or is the only one.
    """

    def __init__(self, command, output, is_launched):
        self.is_launched = is_launched
        with open(f"{output}.log", "a") as log:
            self.launcher = subprocess.Popen(
                [*command, "OUTPUT_DIR", str(output)], stdout=log, stderr=log, start_new_session=True,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )  # fmt: skip

    def wait(self):
        return self.launcher.wait()

    def is_running(self):
        return self.launcher.poll() is None

    def wait_for_workers(self):
        """Wait until there are data workers or the run has ended."""
        while self.is_running() and not self.members()["data worker"]:
            time.sleep(0.2)

    def members(self):
        """Return dict[str, list[int]] from role to process ids."""
        children = {}
        for pid, parent, name in processes_of(self.launcher.pid):
            if "resource_tracker" not in name:
                children.setdefault(parent, []).append(pid)
        launcher = [self.launcher.pid]
        processes = children.get(self.launcher.pid, []) if self.is_launched else launcher
        workers = [worker for process in processes for worker in children.get(process, [])]
        return {"launcher": launcher, "process": processes, "data worker": workers}

    def kill(self, role, rng):
        members = self.members()[role]
        if not members or not self.is_running():
            return False
        try:
            os.kill(rng.choice(members), signal.SIGKILL)
        except ProcessLookupError:
            return False
        return True

    def end(self):
        """Wait until the whole group has ended; return whether it had to be killed."""
        until = time.time() + PATIENCE
        while time.time() < until:
            self.launcher.poll()
            if not list(processes_of(self.launcher.pid)):
                return False
            time.sleep(0.2)
        os.killpg(self.launcher.pid, signal.SIGKILL)
        self.launcher.wait()
        return True


def processes_of(group):
    """Yield (process id, parent's process id, command line) of the running processes of a process group."""
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                fields = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
                name = Path(f"/proc/{entry}/cmdline").read_bytes().decode(errors="replace")
            except OSError:
                continue
            state, parent, of_group = fields[0], int(fields[1]), int(fields[2])
            if of_group == group and state != "Z":
                yield int(entry), parent, name


def truncate_newest(output, rng):
    """Truncate the newest checkpoint if there is an older one; return whether it was truncated."""
    name = last_name(output)
    if name is None or len(list(output.glob("model_0*.pth"))) < 2:
        return False
    path = output / name
    os.truncate(path, rng.randrange(path.stat().st_size))
    return True


def progress(output):
    name = last_name(output)
    return 0 if name is None else int("".join(c for c in name if c.isdigit()) or 0) + 1


def compare(first, second):
    """Return the number of values in two checkpoints, and how many of them are not equal to the last bit."""
    first, second = (dict(flat(torch.load(path, weights_only=True))) for path in (first, second))
    keys = first.keys() | second.keys()
    return len(keys), sum(not same(first.get(key), second.get(key)) for key in keys)


def flat(value, name=""):
    if isinstance(value, (dict, list, tuple)):
        for key, entry in value.items() if isinstance(value, dict) else enumerate(value):
            yield from flat(entry, f"{name}/{key}")
    else:
        yield name, value


def same(first, second):
    if torch.is_tensor(first) and torch.is_tensor(second):
        return first.dtype == second.dtype and torch.equal(first, second)
    return type(first) is type(second) and first == second


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--iterations", type=int, help="of the training; default 16 a round")
    parser.add_argument("--cut-every", type=int, default=5, help="rounds between truncated checkpoints")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", default="output/soak", help="new folder; default %(default)s")
    args = parser.parse_args()
    if os.path.exists(args.output):
        raise InputError(f"{args.output}: exists already; name another folder with --output")
    result = soak(args.output, args.rounds, args.processes, args.iterations, args.cut_every, args.seed)
    print(json.dumps(result, indent=1))
    if result["different"]:
        raise InputError(f"{args.output}: {result['different']} of {result['values']} values differ")
    shutil.rmtree(args.output)


if __name__ == "__main__":
    with one_line_errors():
        main()
