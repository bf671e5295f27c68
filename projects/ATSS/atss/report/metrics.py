"""Read the metrics.json of a training, Detectron2's JSON lines, as curves."""

import json
from typing import NamedTuple

import numpy as np


class Curve(NamedTuple):
    """N values of a metric during training."""

    iterations: np.ndarray  # (N,) int64, increasing, counted from 1
    values: np.ndarray  # (N,) float64, finite


def read_metrics(path):
    """Read a metrics file, which may be missing, truncated or damaged: list of dicts, and number of unreadable lines.

    Numbers become floats. Runs append to the file. One that starts again, or resumes from a checkpoint, repeats
    iterations: its lines replace earlier ones of the same and later iterations.
    """
    kept, broken, last = [], 0, -1
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = file.read().splitlines()
    except OSError:
        return [], 0
    for line in filter(str.strip, lines):
        try:
            record = json.loads(line, parse_int=float)
        except (ValueError, RecursionError):
            record = None
        iteration = record.get("iteration") if isinstance(record, dict) else None
        if not (isinstance(iteration, float) and abs(iteration) < 2**53):
            broken += 1
            continue
        if "total_loss" in record:
            if iteration <= last:
                kept = [earlier for earlier in kept if earlier["iteration"] < iteration]
            last = iteration
        kept.append(record)
    return kept, broken


def curve(records, key):
    """Return the `Curve` of a key, without values that are not finite.

    Detectron2 counts iterations from 0, but writes the last evaluation under the number of iterations.
    """
    end = max((record["iteration"] + 1 for record in records if "total_loss" in record), default=np.inf)
    points = {
        min(int(record["iteration"]) + 1, end): record[key]
        for record in records
        if isinstance(record.get(key), float) and np.isfinite(record[key])
    }
    iterations, values = np.array(sorted(points.items())).reshape(-1, 2).T
    return Curve(iterations.astype(np.int64), values)


def count_not_finite(records, key):
    """Return the number of lines in which a metric is NaN or infinite, and of all lines that have it."""
    values = [record[key] for record in records if isinstance(record.get(key), float)]
    return int((~np.isfinite(values)).sum()), len(values)


def smooth(values, width):
    """Moving mean over `width` (odd) values, fewer at the ends: (N,) -> (N,)."""
    kernel = np.ones(min(width, len(values) - (len(values) + 1) % 2))
    return np.convolve(values, kernel, "same") / np.convolve(np.ones(len(values)), kernel, "same")


def training_seconds(records):
    """Return the seconds spent in iterations, by the median time in each line; 0 where no line has one."""
    time = curve(records, "time")
    return float((np.diff(time.iterations, prepend=0) * time.values).sum())
