"""A run -> HTML, one file that needs no other."""

import os
import shlex
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from .. import __version__
from .dataset_section import dataset_section
from .figures import ImageFolder
from .run_folder import run_facts
from .training_section import training_section

HERE = Path(__file__).parent


def render_page(run, path):
    """Return the page of a `Run` as text, with what comes from the run escaped; its images go into folder `path`."""
    folder = ImageFolder(path)
    folder.clear()
    training, training_notes = training_section(run, folder)
    names = run.cfg.DATASETS.TEST
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    page = environment.get_template("page.html").render(
        name=os.path.basename(os.path.abspath(run.folder)),
        date=run.date.strftime("%d %B %Y, %H:%M"),
        facts=run_facts(run),
        training=training,
        training_notes=training_notes,
        tests=[dataset_section(run, name, folder.of(name) if run.several else folder) for name in names],
        config=run.config_text,
        command=f"python tools/report.py {shlex.quote(run.folder)}",
        version=__version__,
        css=(HERE / "page.css").read_text(),
    )
    # A lone surrogate, which json can hold, cannot be encoded in UTF-8.
    return page.encode("utf-8", "replace").decode("utf-8")
