"""The charts of a report: functions of matplotlib axes, a `Theme` and plain arrays."""

from itertools import cycle

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.ticker import EngFormatter, MaxNLocator

from .metrics import smooth
from .theme import WIDTH, shortened, spaced

NAMED, FEW = 8, 3  # with more classes than NAMED, only the FEW best and worst curves are named
WITH_NUMBERS = 25  # confusion matrices of more classes have no numbers, and small names
SMOOTHED, SHOWN_LINES = 50, 1000  # losses are smoothed from this many lines on, and drawn with at most so many points
POINTS = 250  # of a curve over the score
BARS = 27  # of a chart; more classes take several charts


def losses(axes, theme, name, training, validation):
    """Loss over iterations: each logged value faint, their moving mean, and a validation `Curve` of each dataset."""
    x, y = training
    smoothed = y
    if len(y) >= SMOOTHED:
        axes.plot(*envelope(x, y), color=theme.colors[0], alpha=0.3, lw=1.1)
        smoothed = smooth(y, max(3, len(y) // 25 | 1))
    if len(y):
        axes.plot(x, smoothed, color=theme.colors[0], label="training")
    for (dataset, points), color in zip(validation.items(), cycle(theme.colors[1:])):
        label = "validation" if len(validation) == 1 else shortened(dataset)
        axes.plot(*points, color=color, marker="o", ms=4, lw=1.4, label=label)
    # The high losses of the first iterations would flatten the rest.
    values = np.concatenate([smoothed[len(y) // 50 :], *(points.values for points in validation.values())])
    pad = 0.08 * np.ptp(values) or 0.1 * abs(values.max()) or 1
    axes.set(xlabel="iteration", ylabel=name, ylim=(values.min() - pad, values.max() + pad))
    over_iterations(axes, [training, *validation.values()])
    legend_above(axes)


def legend_above(axes):
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 0.99), ncols=3)


def envelope(x, y):
    """Reduce a curve to at most SHOWN_LINES points that look the same: the minimum and maximum of each block."""
    if len(y) <= SHOWN_LINES:
        return x, y
    blocks = np.array_split(np.arange(len(y)), SHOWN_LINES // 2)
    chosen = np.array([sorted((block[y[block].argmin()], block[y[block].argmax()])) for block in blocks]).ravel()
    return x[chosen], y[chosen]


def over_iterations(axes, curves):
    axes.set_xlim(0, 1.02 * max(curve.iterations.max(initial=1) for curve in curves))
    count_axis(axes.xaxis, 5)


def learning_rate(axes, theme, curve):
    """Learning rate over iterations."""
    axes.plot(*curve, color=theme.colors[2])
    axes.set(xlabel="iteration", ylabel="learning rate", ylim=(0, 1.08 * curve.values.max() or 1))
    axes.yaxis.set_major_formatter("{x:g}")
    over_iterations(axes, [curve])


def average_precision(axes, theme, curves):
    """AP at evaluations, the best marked. `curves`: dict from AP, AP50, AP75 to `Curve`, each with values."""
    for color, (name, (x, y)) in zip(theme.colors, curves.items(), strict=False):
        main = name == "AP"
        axes.plot(x, y, color=color, marker="o", ms=4 if main else 3, lw=2.2 if main else 1.4, label=name)
    if "AP" in curves:
        x, y = curves["AP"]
        best = int(y.argmax())
        axes.plot(x[best], y[best], marker="*", ms=13, color=theme.colors[0], mec=theme.ground, zorder=4)
        axes.annotate(
            f"best {y[best]:.1f}", (x[best], y[best]), xytext=(0, -16), textcoords="offset points", fontsize=8.5,
            ha="right" if x[best] > 0.8 * x[-1] else "center", color=theme.colors[0], weight="bold",
        )  # fmt: skip
    highest = max(y.max() for _, y in curves.values())
    axes.set(xlabel="iteration", ylabel="AP (%)", ylim=(0, min(105, 1.12 * highest) or 1))
    over_iterations(axes, curves.values())
    legend_above(axes)


def curves_of_classes(axes, theme, x, curves, names, rank, labels, marks=None):
    """A curve per class over `x` (S,), and their mean.

    Args:
        curves: (K, S), NaN for classes without ground truth.
        rank: (K,) metric by which a curve is among the best or worst, shown after its name.
        labels: of the two axes.
        marks: (K,) indices of points to mark, or None.
    """
    axes.figure.set_size_inches(WIDTH, 4.2)
    drawn = np.flatnonzero(~np.isnan(curves).all(axis=1))
    drawn = drawn[np.argsort(-rank[drawn], kind="stable")]
    named = drawn if len(drawn) <= NAMED else np.concatenate([drawn[:FEW], drawn[-FEW:]])
    unnamed, every = np.setdiff1d(drawn, named), slice(None, None, max(1, len(x) // POINTS))
    if len(unnamed):
        axes.plot(x[every], curves[unnamed, every].T, color=theme.muted, alpha=0.25, lw=0.8, rasterized=True)
    for k, color in zip(named, cycle(theme.colors)):
        axes.plot(x[every], curves[k, every], color=color, lw=1.3, label=f"{shortened(names[k])} ({rank[k]:.2f})")
        if marks is not None:
            axes.plot(x[marks[k]], curves[k, marks[k]], "o", ms=4.5, color=color)
    if len(drawn) > 1:
        mean, label = np.nanmean(curves[drawn], axis=0), f"mean of {len(drawn)} ({np.nanmean(rank[drawn]):.2f})"
        axes.plot(x[every], mean[every], color=theme.ink, lw=2.8, label=label)
    axes.set(xlabel=labels[0], ylabel=labels[1], xlim=(0, 1.005), ylim=(0, 1.02))
    axes.figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2)


def horizontal_bars(axes, theme, names, values, texts, colors, end, row=0.3, **labels):
    """A bar per name from top to bottom, with a text after it; `row` inches high with its gap, on an axis to `end`."""
    axes.figure.set_size_inches(WIDTH, 0.72 + row * len(names))
    bars = axes.barh(range(len(names)), values, color=colors, height=0.66)
    axes.set_yticks(range(len(names)), names)
    axes.bar_label(bars, texts, padding=3, fontsize=8.5, color=theme.ink)
    axes.set(xlim=(0, end or 1), ylim=(len(names) - 0.4, -0.6), **labels)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.grid(axis="y", visible=False)


def class_bars(axes, theme, names, values, highest):
    """AP of classes in per cent; `highest` of all charts, which have the same scale."""
    names, texts = [spaced(shortened(name)) for name in names], [f"{value:.1f}" for value in values]
    end, labels = min(109, 1.2 * highest), {"xlabel": "AP (%)", "ylabel": "class"}
    horizontal_bars(axes, theme, names, values, texts, theme.colors[0], end, row=0.215, **labels)


def outcomes(axes, theme, names, counts, colors, what):
    """Bars of counts. `colors`: list of indices into the theme's colours. `what`: is counted."""
    texts = [f"{count:,}  ({100 * count / max(sum(counts), 1):.1f}%)" for count in counts]
    colors = [theme.colors[color] for color in colors]
    horizontal_bars(axes, theme, names, counts, texts, colors, 1.42 * max(counts), xlabel=what, ylabel="outcome")
    count_axis(axes.xaxis)


def count_axis(axis, ticks=4):
    axis.set_major_locator(MaxNLocator(ticks, integer=True))
    axis.set_major_formatter(EngFormatter(sep=""))


# TIDE's kinds of errors, and their colours in the theme.
TIDE = {
    "Cls": ("wrong class", 3), "Loc": ("mislocalized", 4), "Both": ("both", 6), "Dupe": ("duplicate", 0),
    "Bkg": ("background", 1), "Miss": ("missed", 5),
}  # fmt: skip


def tide(axes, theme, costs):
    """AP50 that each kind of error costs, in points. `costs`: dict from TIDE's abbreviation to a value from 0 to 1."""
    names, colors = zip(*TIDE.values(), strict=True)
    values = [100 * max(costs[key], 0) for key in TIDE]
    texts, colors = [f"{value:.1f}" for value in values], [theme.colors[color] for color in colors]
    labels = {"xlabel": "AP50 lost (points)", "ylabel": "kind of error"}
    horizontal_bars(axes, theme, names, values, texts, colors, 1.2 * max(values), **labels)


def size_bars(axes, theme, names, values):
    """AP by object size in per cent; NaN without ground truth. `names`: list of lines below the bars."""
    bars = axes.bar(names, np.nan_to_num(values), color=theme.colors[0], width=0.55)
    texts = ["no objects" if np.isnan(value) else f"{value:.1f}" for value in values]
    axes.bar_label(bars, texts, padding=2, fontsize=9, color=theme.ink)
    axes.set(ylim=(0, min(112, 1.2 * np.nanmax(values, initial=4))), ylabel="AP (%)", xlabel="area of the object")
    axes.grid(axis="x", visible=False)


def confusions(axes, theme, matrix, names):
    """An `outcomes.confusion_matrix` (K + 1, K + 1), coloured by shares of its rows, with its counts where they fit."""
    num = len(matrix)
    numbers = num <= WITH_NUMBERS + 1
    side = max(WIDTH, 0.42 * num + 1.6) if numbers else max(11, 0.125 * num + 1.2)
    axes.figure.set_size_inches(side, side * 0.8)
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    colors = LinearSegmentedColormap.from_list("", theme.shades)
    image = axes.imshow(share, cmap=colors, vmin=0, vmax=1, interpolation="nearest")
    small = 8 if numbers else max(4.0, min(7.0, 560 / num))
    labels = [spaced(shortened(name, 16 if numbers else 18)) for name in names]
    upright = num <= 5 and max(map(len, labels)) <= 8
    turned = {} if upright else {"rotation": 90, "rotation_mode": "anchor", "ha": "right", "va": "center"}
    axes.set_xticks(range(num), [*labels, "missed"], fontsize=small, **turned)
    axes.set_yticks(range(num), [*labels, "background"], fontsize=small)
    axes.set(xlabel="class of the detection", ylabel="class of the ground truth")
    axes.tick_params(pad=2)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    for line in (axes.axhline, axes.axvline):
        line(num - 1.5, color=theme.ground, lw=2.5 if numbers else 1.5)
    if numbers:
        size = min(9, 48 / max(5, len(str(matrix.max()))))
        for i, j in np.argwhere(matrix):
            color = theme.ground if share[i, j] > 0.6 else theme.ink
            axes.text(j, i, str(matrix[i, j]), ha="center", va="center", fontsize=size, color=color)
    bar = axes.figure.colorbar(image, ax=axes, shrink=0.6, aspect=28, pad=0.02, label="share of the row")
    bar.outline.set_visible(False)
    bar.ax.tick_params(right=False)


def localization(axes, theme, ious):
    """Histogram of the IoUs of correct detections. `ious`: (N,) from 0.5 to 1."""
    axes.figure.set_size_inches(WIDTH, 2.5)
    axes.hist(ious, bins=np.linspace(0.5, 1, 26), color=theme.colors[2], rwidth=0.9)
    axes.set(xlim=(0.49, 1.01), xlabel="IoU with the ground truth", ylabel="correct detections")
    count_axis(axes.yaxis)
    axes.grid(axis="x", visible=False)


def calibration(axes, theme, bins):
    """Precision over the score. `bins`: list of dicts of hotcoco, equally wide from 0 to 1."""
    axes.plot([0, 1], [0, 1], color=theme.muted, lw=1.2, ls="--", label="perfectly calibrated")
    filled = [entry for entry in bins if entry["count"]]
    centers = [(entry["bin_lower"] + entry["bin_upper"]) / 2 for entry in filled]
    heights = [entry["avg_accuracy"] for entry in filled]
    axes.bar(centers, heights, width=0.9 / len(bins), color=theme.colors[0], label="precision")
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="score", ylabel="precision at an IoU of 0.5")
    axes.grid(axis="x", visible=False)
    legend_above(axes)
