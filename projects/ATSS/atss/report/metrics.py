"""metrics.json of a training, Detectron2's JSON lines -> curves."""

import json
from typing import NamedTuple

import numpy as np


class Curve(NamedTuple):
    """Values along a training.

    iterations: (N,) int64, rising, counted from 1.
    values: (N,) float64, finite.
    """

    iterations: np.ndarray
    values: np.ndarray


def read_metrics(path):
    """Lines of a metrics file, those of the last training in it.

    Runs append to the file. One that starts anew, or goes on from a checkpoint, writes iterations that are there
    already: what stands for them and for later ones goes.

    Args:
        path: file that may be missing, broken off or damaged.

    Returns:
        list of dicts, and the number of lines that are not readable.
    """
    kept, broken, last = [], 0, -1
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = file.read().splitlines()
    except OSError:
        return [], 0
    for line in filter(str.strip, lines):
        record = parse(line)
        if record is None:
            broken += 1
            continue
        if "total_loss" in record:
            if record["iteration"] <= last:
                kept = [earlier for earlier in kept if earlier["iteration"] < record["iteration"]]
            last = record["iteration"]
        kept.append(record)
    return kept, broken


def parse(line):
    """The dict of a line, None where it is none with an iteration."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict) or not is_number(record.get("iteration")):
        return None
    return record if np.isfinite(record["iteration"]) else None


def is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def curve(records, key):
    """The `Curve` of a key, without values that are not finite.

    Detectron2 counts iterations from 0, but writes the last evaluation at their number: both become that number.
    """
    end = max((record["iteration"] + 1 for record in records if "total_loss" in record), default=np.inf)
    points = {
        min(int(record["iteration"]) + 1, end): record[key]
        for record in records
        if is_number(record.get(key)) and np.isfinite(record[key])
    }
    iterations = sorted(points)
    return Curve(np.array(iterations, dtype=np.int64), np.array([points[i] for i in iterations], dtype=np.float64))


def count_not_finite(records, key):
    """Number of lines with a value that is NaN or infinite, and of all with a value."""
    values = [record[key] for record in records if is_number(record.get(key))]
    return int((~np.isfinite(values)).sum()), len(values)


def keys_with(records, prefix):
    """Keys that start with a prefix, in order of their names."""
    return sorted({key for record in records for key in record if key.startswith(prefix)})


def smooth(values, width):
    """Mean of the `width` (odd) values around each, of fewer at the ends: (N,) -> (N,)."""
    kernel = np.ones(min(width, len(values) - (len(values) + 1) % 2))
    return np.convolve(values, kernel, "same") / np.convolve(np.ones(len(values)), kernel, "same")


def training_seconds(records):
    """Seconds spent in iterations: their median times of every line, without evaluations. 0 where no line has one."""
    time = curve(records, "time")
    return float((np.diff(time.iterations, prepend=0) * time.values).sum())
