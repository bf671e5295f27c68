"""The report of a run: how it was trained, how well it detects, and where it goes wrong, as one HTML page."""

import os

from ..errors import InputError
from .page import render_page
from .run_folder import read_run

__all__ = ["write_report"]


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
        page = render_page(run, os.path.join(output_dir, "report"))
        with open(f"{path}.part", "w", encoding="utf-8") as file:
            file.write(page)
        os.replace(f"{path}.part", path)
    except OSError as error:
        raise InputError(f"{error.filename or path}: cannot write the report ({error.strerror or error})") from error
    return path
