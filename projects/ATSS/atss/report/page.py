"""A contents -> HTML, one file that needs no other."""

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

HERE = Path(__file__).parent


def render(contents):
    """The page of some `ReportContents`, a str; texts of the run are escaped."""
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    # A lone surrogate, as json can hold, has no UTF-8.
    page = environment.get_template("page.html").render(contents=contents, css=(HERE / "page.css").read_text())
    return page.encode("utf-8", "replace").decode("utf-8")
