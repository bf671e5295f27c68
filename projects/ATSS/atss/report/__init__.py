"""The report of a run: how it was trained, how well it detects, and where it goes wrong, as one HTML page."""

from .page import write_report

__all__ = ["write_report"]
