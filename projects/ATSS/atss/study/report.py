"""The results of a table of the study: Markdown, CSV, and a plot if it is a curve."""

import csv
import math
import statistics

from .tables import METRICS

COLUMNS = (*METRICS, "positives")
HEADERS = (*METRICS, "positives per object", "AP in the paper")


def write_report(table, results, setting, output):
    """Write `table-N.md`, `table-N.csv` and, for a curve with results, `table-N.png`.

    `results` has for every row a dict from seed to `Run.result()`, without the runs that are not done; `setting` is one
    line that describes the runs, `output` the Path of the folder.
    """
    output.mkdir(parents=True, exist_ok=True)
    stem = output / f"table-{table.number}"
    stem.with_suffix(".md").write_text(markdown(table, results, setting))
    with open(stem.with_suffix(".csv"), "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["row", "seed", *COLUMNS, "paper AP"])
        for row, by_seed in zip(table.rows, results, strict=True):
            for seed, result in sorted(by_seed.items()):
                writer.writerow([row.name, seed, *(result[name] for name in COLUMNS), row.paper["AP"]])
    if table.axis and any(results):
        plot(table, results, stem.with_suffix(".png"))


def markdown(table, results, setting):
    """Return the table: means over the seeds, with sample standard deviations if there are several."""
    lines = [f"### Table {table.number}: {table.title}", "", setting, ""]
    lines += ["| | " + " | ".join(HEADERS) + " |", "| --- |" + " --- |" * len(HEADERS)]
    for row, by_seed in zip(table.rows, results, strict=True):
        cells = [mean_and_deviation([result[name] for result in by_seed.values()]) for name in METRICS]
        positives = [result["positives"] for result in by_seed.values()]
        cells.append(mean_and_deviation(positives[:1]))  # equal for all seeds
        lines.append(" | ".join([f"| {row.name}", *cells, f"{row.paper['AP']:.1f} |"]))
    return "\n".join(lines) + "\n"


def mean_and_deviation(values):
    """Return "12.3", "12.3 ± 0.4" for several values, "-" for none or NaN (a size without objects)."""
    if not values or any(map(math.isnan, values)):
        return "-"
    deviation = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{deviation}"


def plot(table, results, path):
    """Plot AP with standard deviations, and the paper's AP below it on its own scale."""
    from matplotlib.figure import Figure

    chart = Figure(figsize=(6, 4.5), dpi=120, layout="constrained")
    ours, papers = chart.subplots(2, 1, sharex=True)
    points = []
    for row, by_seed in zip(table.rows, results, strict=True):
        aps = [result["AP"] for result in by_seed.values()]
        if aps:
            points.append((row.x, statistics.mean(aps), statistics.stdev(aps) if len(aps) > 1 else 0.0))
    x, mean, deviation = zip(*points, strict=True)
    ours.errorbar(x, mean, deviation, marker="o", capsize=3, color="#0072B2")
    ours.set(ylabel="AP, here", title=f"Table {table.number}: {table.title}")
    x = [row.x for row in table.rows]
    papers.plot(x, [row.paper["AP"] for row in table.rows], marker="s", color="#D55E00")
    papers.set(xlabel=table.axis, ylabel="AP, paper (COCO)")
    for axes in (ours, papers):
        if table.number == 6:
            axes.set_xscale("log", base=2)
        axes.set_xticks(x, [f"{value:g}" for value in x])
        axes.grid(alpha=0.3)
    chart.savefig(path)
