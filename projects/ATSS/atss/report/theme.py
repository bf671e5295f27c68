"""How charts look: two sets of colours, and figures that become small files."""

import base64
import contextlib
import io
import re
import unicodedata
import warnings
from typing import NamedTuple

import matplotlib
from matplotlib.figure import Figure

# What a chart shows at the same width as the page's text: 100 pixels an inch.
WIDTH = 4.4
# Of a PNG, and of what is pixels in an SVG.
DPI = 160
# No PNG of a chart is much smaller than this, in bytes.
LARGE_SVG = 40_000
FONTS = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', 'Noto Sans', sans-serif"


class Theme(NamedTuple):
    """Colours of a chart.

    ground: behind it. ink: of the text. muted: of axes and of what stands back. grid: of its lines.
    colors: of curves, the first for what matters most; colour-blind readers tell them apart.
    shades: colours of nothing and of all.
    """

    ground: str
    ink: str
    muted: str
    grid: str
    colors: tuple
    shades: tuple


LIGHT = Theme(
    "#ffffff", "#1f2733", "#667080", "#e4e8ee",
    ("#0f6cbd", "#d1570c", "#0b8a68", "#b04a92", "#b58900", "#3f9fd8", "#6b4fbb"),
    ("#f3f6fa", "#0a4a8a"),
)  # fmt: skip
DARK = Theme(
    "#171c25", "#e6eaf0", "#98a3b3", "#2c3442",
    ("#63b3ff", "#ff9b54", "#3fcfa4", "#e88bc8", "#e5c04b", "#9ad4ff", "#b39dff"),
    ("#1d2430", "#7cc0ff"),
)  # fmt: skip


@contextlib.contextmanager
def style(theme):
    """matplotlib's settings while a chart is made; the process's own come back."""
    settings = {
        "figure.facecolor": theme.ground, "savefig.facecolor": theme.ground, "axes.facecolor": theme.ground,
        "axes.edgecolor": theme.muted, "axes.labelcolor": theme.ink, "text.color": theme.ink,
        "xtick.bottom": False, "ytick.left": False, "xtick.labelcolor": theme.ink,
        "ytick.labelcolor": theme.ink, "grid.color": theme.grid, "grid.linewidth": 0.8, "axes.grid": True,
        "axes.axisbelow": True, "axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.8,
        "font.family": ["DejaVu Sans"], "font.size": 9, "axes.labelsize": 9, "legend.fontsize": 8.5,
        "legend.frameon": False, "lines.linewidth": 1.8, "lines.solid_capstyle": "round",
        "svg.fonttype": "none", "svg.hashsalt": "report", "text.parse_math": False, "axes.unicode_minus": True,
        "axes.formatter.useoffset": False,
    }  # fmt: skip
    with matplotlib.rc_context({**matplotlib.rcParamsDefault, "backend": "agg", **settings}):
        yield


def new_figure(height, width=WIDTH, **options):
    """Figure and axes of a size in inches; `options` are those of `Figure.subplots`."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(**options)


def encode(figure):
    """A figure as a file, SVG or PNG, whichever is smaller.

    Letters in the SVG stay letters: whoever looks at it needs fonts for them, not the machine that made it.

    Returns:
        its bytes and "svg" or "png".
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        svg = compact(saved(figure, "svg", metadata={"Date": None}).decode()).encode()
        figure.set_layout_engine("none")  # what has been laid out stays
        png = saved(figure, "png") if len(svg) > LARGE_SVG else svg
    return (svg, "svg") if len(svg) <= len(png) else (png, "png")


def saved(figure, kind, **options):
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, dpi=DPI, **options)
    return buffer.getvalue()


def compact(svg):
    """An SVG of matplotlib without comments and line breaks, in the page's fonts, to a hundredth of a point."""
    svg = re.sub(r"<!--.*?-->|<!DOCTYPE[^>]*>|<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"font-family: 'DejaVu Sans'[^;\"]*;? ?", "", svg)
    svg = re.sub(r' transform="rotate\(-0 [^"]*"', "", svg)
    svg = svg.replace("</style>", f"text{{font-family: {FONTS}}}</style>", 1)
    svg = re.sub(r"<[^>]*>", lambda tag: re.sub(r"(\.\d\d)\d+", r"\1", tag[0]), svg)
    return re.sub(r">\s+<", "><", svg)


def recolored(svg, old, new):
    """The bytes of an SVG that has no pixels, from one `Theme` in another: what drawing it again would give."""
    colors = dict(zip(solid_colors(old), solid_colors(new), strict=True))
    return re.sub(rb"#[0-9a-f]{6}", lambda found: colors.get(found[0], found[0]), svg)


def solid_colors(theme):
    return [color.encode() for color in (theme.ground, theme.ink, theme.muted, theme.grid, *theme.colors)]


def data_uri(content, kind):
    """A file as a data URI; `kind` is svg, png or jpg."""
    mime = {"svg": "svg+xml", "jpg": "jpeg"}.get(kind, kind)
    return f"data:image/{mime};base64,{base64.b64encode(content).decode()}"


def shortened(name, most=20):
    """A name of at most the width of `most` letters; Chinese letters and emoji count twice."""
    if sum(map(width, name)) <= most:
        return name
    kept = ""
    while sum(map(width, kept)) + width(name[len(kept)]) < most:
        kept += name[len(kept)]
    return kept + "…"


def spaced(name):
    """A name for an axis, with blanks in front where letters are wider than matplotlib takes them to be.

    A page shows no blanks at the start of a text, but matplotlib leaves place for them.
    """
    return " " * 2 * sum(width(letter) - 1 for letter in name) + name


def width(letter):
    return 2 if unicodedata.east_asian_width(letter) in "WF" else 1
