"""Charts and photos of a report: as files in a folder, and inside the page."""

import re
from pathlib import Path
from typing import NamedTuple

import cv2

from .theme import DARK, LIGHT, data_uri, drawn, recolored

JPEG_QUALITY = 82


class PageImage(NamedTuple):
    """An image in the page."""

    light: str  # data URI
    dark: str | None  # data URI for the dark page, None for the same
    alt: str
    width: int  # in pixels, as it is meant to be shown
    height: int


class Card(NamedTuple):
    """Images side by side, with a title above and lines of text below."""

    images: list
    title: str = ""
    lines: tuple = ()
    wide: bool = False  # takes the page's whole width


class ImageFolder:
    """Writes images into a folder, in files whose names start with `dataset`, and returns them for the page."""

    def __init__(self, path, dataset=None):
        self.path = Path(path)
        self.prefix = re.sub(r"[^\w-]+", "_", dataset) + "_" if dataset else ""

    def chart(self, name, title, draw, *arguments, alt=None, lines=(), wide=False):
        """Draw a chart for light and dark pages with a function of `charts`; returns its `Card`.

        The light one is written into a file of this name, without suffix. `alt` is its title by default.
        """
        figure, light, kind = drawn(LIGHT, draw, *arguments)
        self.write(f"{name}.{kind}", light)
        if kind == "svg" and b"<image" not in light:
            dark = recolored(light, LIGHT, DARK), kind
        else:
            dark = drawn(DARK, draw, *arguments)[1:]
        width, height = (figure.get_size_inches() * 100).round().astype(int).tolist()
        image = PageImage(data_uri(light, kind), data_uri(*dark), alt or title, width, height)
        return Card([image], title, lines, wide)

    def photo(self, name, alt, image):
        """Write an image, (H, W, 3) uint8, RGB; returns its `PageImage`."""
        options = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY, cv2.IMWRITE_JPEG_OPTIMIZE, 1]
        content = cv2.imencode(".jpg", image[:, :, ::-1], options)[1].tobytes()
        self.write(f"{name}.jpg", content)
        return PageImage(data_uri(content, "jpeg"), None, alt, image.shape[1], image.shape[0])

    def write(self, name, content):
        (self.path / f"{self.prefix}{name}").write_bytes(content)
