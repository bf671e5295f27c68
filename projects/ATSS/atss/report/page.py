"""A run -> report.html, one file that needs no other."""

import os
import shlex
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from .. import __version__
from ..errors import InputError
from .dataset_section import dataset_section
from .figures import ImageFolder
from .run_folder import read_run, run_facts
from .training_section import training_section

HERE = Path(__file__).parent


def write_report(output_dir):
    """Write `report.html` into the folder of a run, and its images as files into `report/` there.

    What the run does not have, or what cannot be read, is omitted, with a line that gives the reason.

    Args:
        output_dir: folder that a training or an evaluation wrote, OUTPUT_DIR of its config.

    Returns:
        path of the page.

    Raises:
        InputError: there is no run in the folder, or it cannot be written to.
    """
    run = read_run(output_dir)
    path = os.path.join(output_dir, "report.html")
    try:
        # A lone surrogate, which json can hold, cannot be encoded in UTF-8.
        page = render_page(run, os.path.join(output_dir, "report")).encode("utf-8", "replace")
        Path(f"{path}.part").write_bytes(page)
        os.replace(f"{path}.part", path)
    except OSError as error:
        raise InputError(f"{error.filename or path}: cannot write the report ({error.strerror or error})") from error
    return path


def render_page(run, path):
    """Return the page of a `Run` as text, with what comes from the run escaped; its images go into folder `path`."""
    Path(path).mkdir(exist_ok=True)
    for old in Path(path).iterdir():
        if old.suffix in (".svg", ".png", ".jpg"):
            old.unlink()
    training, training_notes = training_section(run, ImageFolder(path))
    names = run.cfg.DATASETS.TEST
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("page.html").render(
        name=os.path.basename(os.path.abspath(run.folder)),
        date=run.date.strftime("%d %B %Y, %H:%M"),
        facts=run_facts(run),
        training=training,
        training_notes=training_notes,
        tests=[dataset_section(run, name, ImageFolder(path, name if run.several else None)) for name in names],
        config=run.config_text,
        command=f"atss report {shlex.quote(run.folder)}",
        version=__version__,
        css=(HERE / "page.css").read_text(),
    )
