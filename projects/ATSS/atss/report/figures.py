"""The images of a report: as files in a folder, and inside the page."""

import glob
import os
import re
from typing import NamedTuple

from .images import to_jpeg
from .theme import DARK, LIGHT, data_uri, encode, recolored, style

ENDINGS = ("svg", "png", "jpg")


class PageImage(NamedTuple):
    """An image in the page.

    light, dark: data URIs; `dark` is None where it is the same.
    text: what it shows, for those who cannot see it.
    width, height: in pixels, as it is meant to be looked at.
    """

    light: str
    dark: str | None
    text: str
    width: int
    height: int


class Shown(NamedTuple):
    """Images side by side, a title above and lines of text below them; `wide` takes all of the page's width."""

    images: list
    title: str = ""
    lines: tuple = ()
    wide: bool = False


class ImageFolder:
    """Writes images into a folder; those of an earlier report go.

    Args:
        path: the folder, made where it is missing.
    """

    def __init__(self, path):
        self.path = path
        os.makedirs(path, exist_ok=True)
        for ending in ENDINGS:
            for old in glob.glob(os.path.join(glob.escape(path), f"*.{ending}")):
                os.remove(old)

    def chart(self, name, text, draw, *arguments):
        """Draw a chart for light and dark pages; the file is the light one.

        Args:
            name: of the file, without ending.
            text: what it shows.
            draw: function of a `Theme` and `arguments` that gives a matplotlib figure.
        """
        with style(LIGHT):
            figure = draw(LIGHT, *arguments)
            light, kind = encode(figure)
        self.write(f"{name}.{kind}", light)
        if kind == "svg" and b"<image" not in light:
            dark = recolored(light, LIGHT, DARK), kind
        else:
            with style(DARK):
                dark = encode(draw(DARK, *arguments))
        width, height = (figure.get_size_inches() * 100).round().astype(int).tolist()
        return PageImage(data_uri(light, kind), data_uri(*dark), text, width, height)

    def photograph(self, name, text, image):
        """Keep an image, (H, W, 3) uint8, RGB."""
        content = to_jpeg(image)
        self.write(f"{name}.jpg", content)
        return PageImage(data_uri(content, "jpg"), None, text, image.shape[1], image.shape[0])

    def write(self, name, content):
        with open(os.path.join(self.path, name), "wb") as file:
            file.write(content)


def slug(name, prefix):
    """The name of a file, behind a prefix if there is one."""
    return re.sub(r"[^\w-]+", "_", prefix) + "_" + name if prefix else name
