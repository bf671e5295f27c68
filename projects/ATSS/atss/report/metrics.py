"""Read the metrics.json of a training, Detectron2's JSON lines, as curves."""

import json
from typing import NamedTuple

import numpy as np


class Curve(NamedTuple):
    """N values of a metric during training."""

    iterations: np.ndarray  # (N,) int64, increasing, counted from 1
    values: np.ndarray  # (N,) float64, finite


def read_metrics(path):
    """Read the lines of the last training in a metrics file, which may be missing, truncated or damaged.

    Runs append to the file. One that starts again, or resumes from a checkpoint, repeats iterations: its lines replace
    earlier ones of the same and later iterations.

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
    """Return the dict of a line, None where it is not a dict with an iteration."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    valid = isinstance(record, dict) and is_number(record.get("iteration")) and np.isfinite(record["iteration"])
    return record if valid else None


def is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def curve(records, key):
    """Return the `Curve` of a key, without values that are not finite.

    Detectron2 counts iterations from 0, but writes the last evaluation under the number of iterations.
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
    """Return the number of lines in which a metric is NaN or infinite, and of all lines that have it."""
    values = [record[key] for record in records if is_number(record.get(key))]
    return int((~np.isfinite(values)).sum()), len(values)


def keys_with(records, prefix):
    """Return the keys that start with a prefix, sorted."""
    return sorted({key for record in records for key in record if key.startswith(prefix)})


def smooth(values, width):
    """Moving mean over `width` (odd) values, fewer at the ends: (N,) -> (N,)."""
    kernel = np.ones(min(width, len(values) - (len(values) + 1) % 2))
    return np.convolve(values, kernel, "same") / np.convolve(np.ones(len(values)), kernel, "same")


def training_seconds(records):
    """Return the seconds spent in iterations, by the median time in each line; 0 where no line has one."""
    time = curve(records, "time")
    return float((np.diff(time.iterations, prepend=0) * time.values).sum())
