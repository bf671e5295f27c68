"""The charts of a report; each is a function of a `Theme` and plain arrays that gives a matplotlib figure."""

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.ticker import EngFormatter, MaxNLocator

from .metrics import smooth
from .theme import WIDTH, new_figure, shortened, spaced

# Curves of more classes than this stand back, but for the mean and the best and worst few.
NAMED = 8
FEW = 3
# Confusion matrices of more classes have no numbers, and names in small letters.
WITH_NUMBERS = 25
# Losses of fewer lines are shown as they are; of more than so many, the lowest and the highest of neighbours.
SMOOTHED, SHOWN_LINES = 50, 1000
# Points of a curve over the score.
POINTS = 250
# Bars of a chart; more classes become several charts.
BARS = 27


def losses(theme, name, training, validation):
    """A loss over a training: every line faint, smoothed, and at evaluations that of other images.

    Args:
        name: of the loss.
        training: `Curve`.
        validation: dict from a dataset's name to its `Curve`.
    """
    figure, axes = new_figure(2.9)
    x, y = training
    many = len(y) >= SMOOTHED
    if len(y):
        label, alpha, width = (None, 0.3, 1.1) if many else ("training", 1, 1.8)
        axes.plot(*envelope(x, y), color=theme.colors[0], alpha=alpha, lw=width, label=label)
    smoothed = smooth(y, max(3, len(y) // 25 | 1)) if many else y
    if many:
        axes.plot(x, smoothed, color=theme.colors[0], label="training")
    for place, (dataset, (at, values)) in enumerate(validation.items()):
        color = theme.colors[1 + place % (len(theme.colors) - 1)]
        label = "validation" if len(validation) == 1 else shortened(dataset)
        axes.plot(at, values, color=color, marker="o", ms=4, lw=1.4, label=label)
    # The first iterations' losses would leave no height for the others.
    settled = smoothed[len(y) // 50 :]
    values = np.concatenate([settled, *(curve.values for curve in validation.values())])
    low, high = values.min(), values.max()
    pad = 0.08 * (high - low) or 0.1 * abs(high) or 1
    axes.set_ylim(low - pad, high + pad)
    axes.set(xlabel="iteration", ylabel=name)
    over_iterations(axes, max(x[-1:].max(initial=1), *(c.iterations.max() for c in validation.values()), 1))
    legend_above(axes)
    return figure


def legend_above(axes):
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 0.99), ncols=3)


def envelope(x, y):
    """A curve of at most SHOWN_LINES points that looks like one of more: the lowest and the highest of neighbours."""
    if len(y) <= SHOWN_LINES:
        return x, y
    blocks = np.array_split(np.arange(len(y)), SHOWN_LINES // 2)
    chosen = np.array([sorted((block[y[block].argmin()], block[y[block].argmax()])) for block in blocks]).ravel()
    return x[chosen], y[chosen]


def over_iterations(axes, end):
    axes.set_xlim(0, 1.02 * end)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))


def learning_rate(theme, curve):
    figure, axes = new_figure(2.9)
    axes.plot(*curve, color=theme.colors[2])
    axes.set_ylim(0, 1.08 * curve.values.max() or 1)
    axes.set(xlabel="iteration", ylabel="learning rate")
    axes.yaxis.set_major_formatter("{x:g}")
    over_iterations(axes, curve.iterations.max())
    return figure


def average_precision(theme, curves):
    """AP at evaluations, the best marked. `curves`: dict from AP, AP50, AP75 to `Curve`, each with values."""
    figure, axes = new_figure(2.9)
    for color, (name, (x, y)) in zip(theme.colors, curves.items(), strict=False):
        main = name == "AP"
        axes.plot(x, y, color=color, marker="o", ms=4 if main else 3, lw=2.2 if main else 1.4, label=name)
    top = max(y.max() for _, y in curves.values())
    if "AP" in curves:
        x, y = curves["AP"]
        best = int(y.argmax())
        axes.plot(x[best], y[best], marker="*", ms=13, color=theme.colors[0], mec=theme.ground, zorder=4)
        axes.annotate(
            f"best {y[best]:.1f}", (x[best], y[best]), xytext=(0, -16), textcoords="offset points", fontsize=8.5,
            ha="right" if x[best] > 0.8 * x[-1] else "center", color=theme.colors[0], weight="bold",
        )  # fmt: skip
    axes.set_ylim(0, min(105, 1.12 * top) or 1)
    axes.set(xlabel="iteration", ylabel="AP (%)")
    over_iterations(axes, max(x.max() for x, _ in curves.values()))
    legend_above(axes)
    return figure


def curves_of_classes(theme, x, curves, names, rank, labels, marks=None):
    """A curve a class and their mean.

    Args:
        x: (S,).
        curves: (K, S), those of a class without objects NaN.
        names: list of K.
        rank: (K,) figure by which a curve is among the best or worst, shown behind its name.
        labels: of the two axes.
        marks: (K,) places of points to mark, or None.
    """
    figure, axes = new_figure(4.2)
    drawn = np.flatnonzero(~np.isnan(curves).all(axis=1))
    drawn = drawn[np.argsort(-rank[drawn], kind="stable")]
    named = drawn if len(drawn) <= NAMED else np.concatenate([drawn[:FEW], drawn[-FEW:]])
    behind, step = np.setdiff1d(drawn, named), max(1, len(x) // POINTS)
    if len(behind):
        axes.plot(x[::step], curves[behind, ::step].T, color=theme.muted, alpha=0.25, lw=0.8, rasterized=True)
    for place, k in enumerate(named):
        color = theme.colors[place % len(theme.colors)]
        axes.plot(x[::step], curves[k, ::step], color=color, lw=1.3, label=f"{shortened(names[k])} ({rank[k]:.2f})")
        if marks is not None:
            axes.plot(x[marks[k]], curves[k, marks[k]], "o", ms=4.5, color=color)
    if len(drawn) > 1:
        mean = np.nanmean(curves[drawn], axis=0)
        axes.plot(
            x[::step],
            mean[::step],
            color=theme.ink,
            lw=2.8,
            label=f"mean of {len(drawn)} ({np.nanmean(rank[drawn]):.2f})",
        )
    axes.set(xlabel=labels[0], ylabel=labels[1], xlim=(0, 1.005), ylim=(0, 1.02))
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


def class_bars(theme, names, values, highest):
    """Bars of classes, from above. `values`: list in per cent. `highest`: of all charts, which have the same scale."""
    figure, axes = new_figure(0.75 + 0.215 * len(names))
    places = np.arange(len(names))
    axes.barh(places, values, color=theme.colors[0], height=0.66)
    end = min(109, 1.2 * highest) or 1
    for place, value in zip(places, values, strict=True):
        axes.text(value + 0.01 * end, place, f"{value:.1f}", va="center", fontsize=8, color=theme.ink)
    axes.set_yticks(places, [spaced(shortened(name)) for name in names])
    axes.set(xlim=(0, end), ylim=(len(names) - 0.4, -0.6), xlabel="AP (%)", ylabel="class")
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.grid(axis="y", visible=False)
    return figure


def size_bars(theme, names, values):
    """AP by size; NaN where there are no objects. `names`: list of lines below the bars."""
    figure, axes = new_figure(2.9)
    places = np.arange(len(names))
    axes.bar(places, np.nan_to_num(values), color=theme.colors[:1] * len(names), width=0.55)
    end = 1.2 * np.nanmax(values, initial=4)
    for place, value in zip(places, values, strict=True):
        text = "no objects" if np.isnan(value) else f"{value:.1f}"
        axes.text(place, np.nan_to_num(value) + 0.02 * end, text, ha="center", va="bottom", fontsize=9, color=theme.ink)
    axes.set_xticks(places, names)
    axes.set(ylim=(0, min(112, end)), ylabel="AP (%)", xlabel="area of the object")
    axes.grid(axis="x", visible=False)
    return figure


def confusions(theme, matrix, names):
    """A confusion matrix as colours, shares of its rows, with its counts where they fit.

    Args:
        matrix: (K + 1, K + 1) counts, row and column as in `outcomes.confusion_matrix`.
        names: list of the K classes.
    """
    num = len(matrix)
    numbers = num <= WITH_NUMBERS + 1
    side = max(WIDTH, 0.42 * num + 1.6) if numbers else max(11, 0.125 * num + 1.2)
    figure, axes = new_figure(side * 0.8, side)
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(
        share, cmap=LinearSegmentedColormap.from_list("", theme.shades), vmin=0, vmax=1, interpolation="nearest"
    )
    small = 8 if numbers else max(4.0, min(7.0, 560 / num))
    cut = 16 if numbers else 18
    rows = [spaced(shortened(name, cut)) for name in names]
    turned = {"rotation": 90, "rotation_mode": "anchor", "ha": "right", "va": "center"} if num > 5 else {}
    axes.set_xticks(range(num), [*rows, "missed"], fontsize=small, **turned)
    axes.set_yticks(range(num), [*rows, "background"], fontsize=small)
    axes.set(xlabel="class of the detection", ylabel="class of the ground truth")
    axes.tick_params(pad=2)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    for line in (axes.axhline, axes.axvline):
        line(num - 1.5, color=theme.ground, lw=2.5 if numbers else 1.5)
    if numbers:
        size = min(9, 48 / max(5, len(str(matrix.max()))))
        for (i, j), count in np.ndenumerate(matrix):
            if count:
                red, green, blue, _ = image.cmap(share[i, j])
                dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.55
                axes.text(j, i, str(count), ha="center", va="center", fontsize=size, color="w" if dark else "#111")
    bar = figure.colorbar(image, ax=axes, shrink=0.6, aspect=28, pad=0.02, label="share of the row")
    bar.outline.set_visible(False)
    bar.ax.tick_params(right=False)
    return figure


def localization(theme, ious):
    """Histogram of the IoUs of correct detections. `ious`: (N,) from 0.5 to 1."""
    figure, axes = new_figure(2.5)
    axes.hist(ious, bins=np.linspace(0.5, 1, 26), color=theme.colors[2], rwidth=0.9)
    axes.set(xlim=(0.49, 1.01), xlabel="IoU with the ground truth", ylabel="correct detections")
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.yaxis.set_major_formatter(EngFormatter(sep=""))
    axes.grid(axis="x", visible=False)
    return figure


def outcomes(theme, names, counts, colors, what):
    """Horizontal bars of counts. `colors`: list of indices into the theme's colours. `what`: is counted."""
    total = max(sum(counts), 1)
    texts = [f"{count:,}  ({100 * count / total:.1f}%)" for count in counts]
    figure, axes = horizontal_bars(theme, names, counts, [theme.colors[c] for c in colors], texts)
    axes.set(xlabel=what, ylabel="outcome")
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    return figure


# TIDE's kinds of errors.
TIDE = {
    "Cls": "wrong class", "Loc": "mislocalized", "Both": "both", "Dupe": "duplicate", "Bkg": "background",
    "Miss": "missed",
}  # fmt: skip


def tide(theme, costs):
    """AP50 that each kind of error costs, in points. `costs`: dict from TIDE's abbreviation to a value from 0 to 1."""
    values = [100 * max(costs[key], 0) for key in TIDE]
    colors = [theme.colors[c] for c in (3, 4, 6, 0, 1, 5)]
    figure, axes = horizontal_bars(theme, list(TIDE.values()), values, colors, [f"{value:.1f}" for value in values])
    axes.set(xlabel="AP50 that is lost (points)", ylabel="kind of error")
    axes.xaxis.set_major_locator(MaxNLocator(4))
    return figure


def horizontal_bars(theme, names, values, colors, texts):
    """Figure and axes with a bar per name from top to bottom, and a text behind each."""
    figure, axes = new_figure(0.7 + 0.3 * len(names))
    places, most = np.arange(len(names)), max(max(values, default=1), 1e-9)
    axes.barh(places, values, color=colors, height=0.66)
    for place, value, text in zip(places, values, texts, strict=True):
        axes.text(value + 0.015 * most, place, text, va="center", fontsize=8.5, color=theme.ink)
    axes.set_yticks(places, names)
    axes.set(xlim=(0, 1.42 * most), ylim=(len(names) - 0.4, -0.6))
    axes.grid(axis="y", visible=False)
    return figure, axes


def calibration(theme, bins):
    """Precision over the score. `bins`: list of dicts of hotcoco, equally wide from 0 to 1."""
    figure, axes = new_figure(2.9)
    axes.plot([0, 1], [0, 1], color=theme.muted, lw=1.2, ls="--", label="perfectly calibrated")
    filled = [bin for bin in bins if bin["count"]]
    axes.bar(
        [(bin["bin_lower"] + bin["bin_upper"]) / 2 for bin in filled],
        [bin["avg_accuracy"] for bin in filled],
        width=0.9 / len(bins),
        color=theme.colors[0],
        label="precision",
    )
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="score", ylabel="precision at an IoU of 0.5")
    axes.grid(axis="x", visible=False)
    legend_above(axes)
    return figure
