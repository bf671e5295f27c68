"""The training of a run: curves of its losses, learning rate and AP."""

from . import charts
from .figures import ImageFolder
from .metrics import count_not_finite
from .words import counted

TITLES = {
    "total_loss": "total loss", "loss_cls": "classification loss", "loss_box": "box loss",
    "loss_centerness": "centerness loss", "loss_distribution": "distribution loss",
}  # fmt: skip


def training_section(run, folder):
    """Return a list of `Card` about the training of a `Run`, and a list of lines about what is omitted."""
    records, datasets, cards, notes = run.metrics, run.cfg.DATASETS.TEST, [], []
    if run.broken:
        notes.append(f"{counted(run.broken, 'line')} of metrics.json omitted: not readable.")
    has_validation = False
    others = sorted({key for record in records for key in record if key.startswith("loss_")} - TITLES.keys())
    for key in (*TITLES, *others):
        bad, total = count_not_finite(records, key)
        if bad:
            notes.append(f"{key} is NaN or infinite in {bad:,} of {counted(total, 'line')}.")
        training = run.curve(key)
        validation = {name: run.curve(f"validation/{key}", name) for name in datasets}
        validation = {name: curve for name, curve in validation.items() if len(curve.values)}
        has_validation |= bool(validation)
        if len(training.values) or validation:
            title = TITLES.get(key, key.replace("_", " "))
            alt = f"{title} over iterations"
            cards.append(folder.chart(key, title.capitalize(), charts.losses, title, training, validation, alt=alt))
    if not cards:
        notes.append("Curves of losses omitted: metrics.json has none, as after an evaluation alone.")
    elif not has_validation:
        notes.append("Validation losses omitted: metrics.json has none.")
    rate = run.curve("lr")
    if len(rate.values):
        alt = "learning rate over iterations"
        cards.append(folder.chart("learning_rate", "Learning rate", charts.learning_rate, rate, alt=alt))
    for name in datasets:
        curves = {key: run.curve(f"bbox/{key}", name) for key in ("AP", "AP50", "AP75")}
        curves = {key: curve for key, curve in curves.items() if len(curve.values)}
        title = f"AP on {name}" if run.several else "AP"
        if curves:
            alt = f"{title} over iterations"
            images = ImageFolder(folder.path, name if run.several else None)
            cards.append(images.chart("ap", title, charts.average_precision, curves, alt=alt))
        elif records:
            notes.append(f"Curve of {title} omitted: no evaluation has ended yet.")
    return cards, notes
