"""A page that tells the contents of a run: how it was trained, how well it detects, and where it goes wrong."""

import os

from ..errors import InputError
from .contents import report_contents
from .figures import ImageFolder
from .page import render
from .run_folder import read_run

__all__ = ["write_report"]


def write_report(output_dir):
    """Write `report.html` into the folder of a run, and its images as files into `report/` there.

    What a run does not have, or what cannot be read, is omitted of the page, with a line that says why.

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
        page = render(report_contents(run, ImageFolder(os.path.join(output_dir, "report"))))
        with open(f"{path}.part", "w", encoding="utf-8") as file:
            file.write(page)
        os.replace(f"{path}.part", path)
    except OSError as error:
        raise InputError(f"{error.filename or path}: cannot write the report ({error.strerror or error})") from error
    return path
