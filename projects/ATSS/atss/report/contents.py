"""What a report says of a run, in order; `page.html` lays it out."""

import shlex
from dataclasses import dataclass

import numpy as np

from .. import __version__
from .dataset_section import Test, dataset_section
from .metrics import curve, training_seconds
from .run_folder import describe_model, describe_schedule
from .training_section import training_section
from .words import duration


@dataclass
class ReportContents:
    """All of a page.

    name: of the run. date: of its figures.
    facts: list of pairs of what and how.
    training: list of `Shown`. training_notes: list of lines about what is omitted.
    tests: list of `Test`, one a dataset.
    config: text of config.yaml. command: that makes this report. version: of this project.
    """

    name: str
    date: str
    facts: list
    training: list
    training_notes: list
    tests: list[Test]
    config: str
    command: str
    version: str


def report_contents(run, folder):
    """The `ReportContents` of a `Run`; its images go into a `ImageFolder`."""
    names = list(run.cfg.DATASETS.TEST)
    training, notes = training_section(run, folder, names)
    return ReportContents(
        name=run.name,
        date=run.date.strftime("%d %B %Y, %H:%M"),
        facts=facts_of(run),
        training=training,
        training_notes=notes,
        tests=[dataset_section(run, folder, name, several=len(names) > 1) for name in names],
        config=run.config_text,
        command=f"python tools/report.py {shlex.quote(run.folder)}",
        version=__version__,
    )


def facts_of(run):
    """Pairs of what and how about model and training."""
    cfg, facts = run.cfg, []
    if run.config_file:
        facts.append(("Config", run.config_file))
    facts.append(("Model", describe_model(cfg)))
    steps = curve(run.metrics, "total_loss").iterations
    if not len(steps):
        return facts
    facts += [("Trained on", ", ".join(cfg.DATASETS.TRAIN)), ("Schedule", describe_schedule(cfg))]
    if steps[-1] < cfg.SOLVER.MAX_ITER:
        facts.append(("Ended", f"after {steps[-1]:,} of {cfg.SOLVER.MAX_ITER:,} iterations"))
    seconds = training_seconds(run.metrics)
    if seconds > 0:
        each = float(np.median(curve(run.metrics, "time").values))
        speed = f"{each:.3g} s an iteration, {cfg.SOLVER.IMS_PER_BATCH / each:.3g} images per second"
        facts += [("Training time", f"{duration(seconds)}, without evaluations"), ("Speed", speed)]
    return facts
