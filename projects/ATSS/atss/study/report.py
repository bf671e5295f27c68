"""What a table of the study has given: Markdown, CSV, and a plot where it is a curve."""

import csv
import math
import statistics

from .tables import METRICS

COLUMNS = (*METRICS, "positives")
HEADERS = (*METRICS, "positives per object", "AP in the paper")


def write_report(table, results, setting, output):
    """Write `table-N.md`, `table-N.csv` and, for a curve with results, `table-N.png` into a folder.

    Args:
        table: `Table`.
        results: for every row a dict from seed to its figures (see `Run.result`), without those not run yet.
        setting: one line about what was run.
        output: the folder, a `Path`.
    """
    output.mkdir(parents=True, exist_ok=True)
    (output / f"table-{table.number}.md").write_text(markdown(table, results, setting))
    with open(output / f"table-{table.number}.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["row", "seed", *COLUMNS, "paper AP"])
        for row, by_seed in zip(table.rows, results, strict=True):
            for seed, figures in sorted(by_seed.items()):
                writer.writerow([row.name, seed, *(figures[name] for name in COLUMNS), row.paper["AP"]])
    if table.axis and any(results):
        plot(table, results, output / f"table-{table.number}.png")


def markdown(table, results, setting):
    """The table as text: means over the seeds, with standard deviations (of a sample) where there are several."""
    lines = [f"### Table {table.number}: {table.title}", "", setting, ""]
    lines += ["| | " + " | ".join(HEADERS) + " |", "| --- |" + " --- |" * len(HEADERS)]
    for row, by_seed in zip(table.rows, results, strict=True):
        cells = [figure([figures[name] for figures in by_seed.values()]) for name in METRICS]
        # The same for every seed.
        cells.append(figure([figures["positives"] for figures in by_seed.values()][:1]))
        lines.append(f"| {row.name} | " + " | ".join([*cells, f"{row.paper['AP']:.1f}"]) + " |")
    return "\n".join(lines) + "\n"


def figure(values):
    """ "12.3", "12.3 ± 0.4" for several, "-" for none or where there is nothing to measure."""
    if not values or any(map(math.isnan, values)):
        return "-"
    deviation = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{deviation}"


def plot(table, results, path):
    """AP along the curve, with standard deviations, and the paper's below it, each on its own scale."""
    from matplotlib.figure import Figure

    chart = Figure(figsize=(6, 4.5), dpi=120, layout="constrained")
    ours, papers = chart.subplots(2, 1, sharex=True)
    points = []
    for row, by_seed in zip(table.rows, results, strict=True):
        values = [figures["AP"] for figures in by_seed.values()]
        if values:
            points.append((row.x, statistics.mean(values), statistics.stdev(values) if len(values) > 1 else 0.0))
    x, mean, deviation = zip(*points, strict=True)
    ours.errorbar(x, mean, deviation, marker="o", capsize=3, color="#0072B2")
    ours.set(ylabel="AP, here", title=f"Table {table.number}: {table.title}")
    papers.plot(*zip(*((row.x, row.paper["AP"]) for row in table.rows), strict=True), marker="s", color="#D55E00")
    papers.set(xlabel=table.axis, ylabel="AP, paper (COCO)")
    for axes in (ours, papers):
        if table.number == 6:
            axes.set_xscale("log", base=2)
        axes.set_xticks([row.x for row in table.rows], [f"{row.x:g}" for row in table.rows])
        axes.grid(alpha=0.3)
    chart.savefig(path)
