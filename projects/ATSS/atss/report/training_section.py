"""How a run was trained: curves of its losses, learning rate and AP."""

from . import charts
from .figures import Shown, slug
from .metrics import count_not_finite, curve, keys_with
from .words import counted

TITLES = {
    "total_loss": "total loss", "loss_cls": "classification loss", "loss_box": "box loss",
    "loss_centerness": "centerness loss",
}  # fmt: skip
AP_KEYS = ("AP", "AP50", "AP75")


def training_section(run, folder, names):
    """Charts of the training of a `Run` that is tested on datasets of these names.

    Returns:
        list of `Shown`, list of lines about what is omitted.
    """
    records, shown, notes = run.metrics, [], []
    prefixes = {name: f"{name}/" if len(names) > 1 else "" for name in names}
    if run.broken:
        notes.append(f"{counted(run.broken, 'line')} of metrics.json omitted: not readable.")
    for key in dict.fromkeys((*TITLES, *keys_with(records, "loss_"))):
        notes += strange(records, key)
        training = curve(records, key)
        validation = {name: curve(records, f"{prefix}validation/{key}") for name, prefix in prefixes.items()}
        validation = {name: points for name, points in validation.items() if len(points.values)}
        if len(training.values) or validation:
            title = TITLES.get(key, key.replace("_", " "))
            chart = folder.chart(key, f"{title} over iterations", charts.losses, title, training, validation)
            shown.append(Shown([chart], title.capitalize()))
    if not shown:
        notes.append("Curves of losses omitted: metrics.json has none, as after an evaluation alone.")
    elif not keys_with(records, "validation/") and not any(keys_with(records, f"{n}/validation/") for n in names):
        notes.append("Validation losses omitted: metrics.json has none.")
    rate = curve(records, "lr")
    if len(rate.values):
        chart = folder.chart("learning_rate", "learning rate over iterations", charts.learning_rate, rate)
        shown.append(Shown([chart], "Learning rate"))
    for name, prefix in prefixes.items():
        points = {key: curve(records, f"{prefix}bbox/{key}") for key in AP_KEYS}
        points = {key: values for key, values in points.items() if len(values.values)}
        where = f" on {name}" if prefix else ""
        if points:
            chart = folder.chart(
                slug("ap", name if prefix else ""), f"AP{where} over iterations", charts.average_precision, points
            )
            shown.append(Shown([chart], f"AP{where}"))
        elif records:
            notes.append(f"Curve of AP{where} omitted: no evaluation has ended yet.")
    return shown, notes


def strange(records, key):
    """A line about values that are no numbers, if there are."""
    bad, total = count_not_finite(records, key)
    return [f"{key} is NaN or infinite in {bad:,} of {counted(total, 'line')}."] if bad else []
