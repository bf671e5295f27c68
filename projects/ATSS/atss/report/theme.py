"""The look of charts: light and dark colours, and figures as small files."""

import base64
import io
import re
import unicodedata
import warnings
from typing import NamedTuple

import matplotlib
from matplotlib.figure import Figure

WIDTH, HEIGHT = 4.4, 2.9  # of most charts in inches; the page shows 100 pixels per inch
DPI = 160  # of a PNG, and of pixels in an SVG
LARGE_SVG = 40_000  # bytes; hardly any PNG of a chart is smaller
FONTS = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', 'Noto Sans', sans-serif"


class Theme(NamedTuple):
    """Colours of a chart."""

    ground: str  # background
    ink: str  # text
    muted: str  # axes and secondary curves
    grid: str
    colors: tuple  # of curves and bars, the main one first; distinct for colour-blind readers
    shades: tuple  # of 0 and 1 in a confusion matrix


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


def drawn(theme, draw, *arguments):
    """Draw a chart, a function of axes, a `Theme` and arguments, with the report's matplotlib settings.

    Returns the figure, and what `encode` makes of it.
    """
    settings = {
        "figure.facecolor": theme.ground, "savefig.facecolor": theme.ground, "axes.facecolor": theme.ground,
        "axes.edgecolor": theme.muted, "axes.labelcolor": theme.ink, "text.color": theme.ink,
        "xtick.bottom": False, "ytick.left": False, "xtick.labelcolor": theme.ink, "ytick.labelcolor": theme.ink,
        "grid.color": theme.grid, "axes.grid": True, "axes.axisbelow": True,
        "axes.spines.top": False, "axes.spines.right": False, "axes.formatter.useoffset": False,
        "font.family": ["DejaVu Sans"], "font.size": 9, "legend.fontsize": 8.5, "legend.frameon": False,
        "lines.linewidth": 1.8, "lines.solid_capstyle": "round", "text.parse_math": False,
        "svg.fonttype": "none", "svg.hashsalt": "report",
    }  # fmt: skip
    with matplotlib.rc_context({**matplotlib.rcParamsDefault, "backend": "agg", **settings}):
        figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
        draw(figure.subplots(), theme, *arguments)
        return figure, *encode(figure)


def encode(figure):
    """Encode a figure as SVG or PNG, whichever is smaller; returns its bytes and "svg" or "png".

    Text in the SVG stays text, drawn with the viewer's fonts.
    """
    svg, png = io.BytesIO(), io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        figure.savefig(svg, format="svg", dpi=DPI, metadata={"Date": None})
        svg = compact(svg.getvalue().decode()).encode()
        if len(svg) <= LARGE_SVG:
            return svg, "svg"
        figure.set_layout_engine("none")  # keep the layout
        figure.savefig(png, format="png", dpi=DPI)
    return min((svg, "svg"), (png.getvalue(), "png"), key=lambda file: len(file[0]))


def compact(svg):
    """Strip comments and line breaks from matplotlib's SVG, round to a hundredth of a point, use the page's fonts."""
    svg = re.sub(r"<!--.*?-->|<!DOCTYPE[^>]*>|<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"font-family: 'DejaVu Sans'[^;\"]*;? ?", "", svg)
    svg = re.sub(r' transform="rotate\(-0 [^"]*"', "", svg)
    svg = svg.replace("</style>", f"text{{font-family: {FONTS}}}</style>", 1)
    svg = re.sub(r"<[^>]*>", lambda tag: re.sub(r"(\.\d\d)\d+", r"\1", tag[0]), svg)
    return re.sub(r">\s+<", "><", svg)


def recolored(svg, old, new):
    """Replace the colours of a `Theme` by those of another in the bytes of an SVG without pixels."""
    before, after = ([color.encode() for color in (*theme[:4], *theme.colors)] for theme in (old, new))
    colors = dict(zip(before, after, strict=True))
    return re.sub(rb"#[0-9a-f]{6}", lambda found: colors.get(found[0], found[0]), svg)


def data_uri(content, kind):
    """Return an image as a data URI; `kind` is svg, png or jpeg."""
    return f"data:image/{kind.replace('svg', 'svg+xml')};base64,{base64.b64encode(content).decode()}"


def shortened(name, most=20):
    """Cut a name to the width of `most` letters; Chinese letters and emoji count twice."""
    if sum(map(width, name)) <= most:
        return name
    kept = ""
    while sum(map(width, kept)) + width(name[len(kept)]) < most:
        kept += name[len(kept)]
    return kept + "…"


def spaced(name):
    """Prepend blanks, which browsers do not show, to a name on an axis: matplotlib underestimates wide letters."""
    return " " * 2 * sum(width(letter) - 1 for letter in name) + name


def width(letter):
    return 2 if unicodedata.east_asian_width(letter) in "WF" else 1
