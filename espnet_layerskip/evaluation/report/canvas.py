"""Drawing: one look for all figures, as PNG and SVG files and as SVG inside the page.

The one module that imports matplotlib, and only when something is drawn: it is an extra.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from html import escape
from importlib import import_module
from typing import Any, NamedTuple

# Okabe and Ito's colours: told apart with any colour vision. Line style and marker differ too.
INK, MUTED, GRID, PAPER = "#1b1f24", "#5f6873", "#d8dce1", "#fdfdfe"
BLUE, VERMILLION, GREEN, PURPLE, SKY = "#0072b2", "#d55e00", "#009e73", "#b5609a", "#a9d3ee"
VEIL = "#ffffff"  # over frames that skip; in the page it is dark where the page is dark
# In the page these colours become CSS variables, so that they follow light and dark.
_VARIABLES = {
    INK: "ink",
    MUTED: "muted",
    GRID: "grid",
    PAPER: "paper",
    BLUE: "blue",
    VERMILLION: "vermillion",
    GREEN: "green",
    PURPLE: "purple",
    SKY: "sky",
    VEIL: "veil",
}
_FONT = "DejaVu Sans"  # comes with matplotlib, and is wider than most: where it fits others do
WIDTH = 5.0  # inches: at 10 points the text can still be read on a phone, 340 px wide
PNG_DPI = 200

_STYLE: dict[str, Any] = {
    **dict.fromkeys(("axes.edgecolor", "xtick.color", "ytick.color"), MUTED),
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.titlecolor", "legend.labelcolor"), INK),
    **dict.fromkeys(("xtick.labelcolor", "ytick.labelcolor"), INK),
    **dict.fromkeys(("figure.facecolor", "savefig.facecolor"), PAPER),
    **dict.fromkeys(("font.size", "axes.labelsize", "axes.titlesize"), 10),
    **dict.fromkeys(("legend.fontsize", "xtick.labelsize", "ytick.labelsize"), 9),
    **dict.fromkeys(("axes.spines.right", "axes.spines.top", "legend.frameon"), False),
    **dict.fromkeys(("axes.grid", "axes.axisbelow", "figure.constrained_layout.use"), True),
    "axes.facecolor": "none",
    "axes.titlelocation": "left",
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.5,
    "font.family": _FONT,
    "image.composite_image": False,
    "svg.fonttype": "none",  # text stays text
}


class Panel(NamedTuple):
    """Where axes lie in a figure, in points from its top left corner, and what they show.

    Attributes:
        left, top, right, bottom: Of the axes.
        x: Data at the left and at the right edge.
        y: Data at the bottom and at the top edge.
    """

    left: float
    top: float
    right: float
    bottom: float
    x: tuple[float, float]
    y: tuple[float, float]


@dataclass(frozen=True)
class Drawing:
    """A finished figure.

    Attributes:
        name: File name without suffix, also its id in the page.
        title: Heading.
        caption: What is shown and what to look for.
        svg: SVG file.
        png: PNG file.
        width: In inches.
        tips: Text that the page shows on hover: {id of an element: text}.
        panels: Axes that the page's script draws into, by name.
    """

    name: str
    title: str
    caption: str
    svg: str
    png: bytes
    width: float
    tips: Mapping[str, str] = field(default_factory=dict)
    panels: Mapping[str, Panel] = field(default_factory=dict)


def check_installed() -> None:
    """Raise ValueError, with the command to run, if a library of the figures is missing."""
    for module in ("matplotlib", "jinja2"):
        try:
            import_module(module)
        except ImportError as e:
            raise ValueError(
                f"figures need {module}, which is not installed: "
                f"pip install 'espnet_layerskip[figures]', or pip install {module}"
            ) from e


@contextmanager
def style() -> Iterator[None]:
    """Draw in our look, whatever the user's own settings; also a decorator."""
    import matplotlib as mpl

    with mpl.rc_context():
        mpl.rcdefaults()
        parameters: Any = mpl.rcParams  # its type names every key
        parameters.update(_STYLE)
        yield


def new_figure(height: float, width: float = WIDTH) -> Any:
    """Return an empty matplotlib Figure of a size in inches; call it inside `style`."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height))


def finish(
    figure: Any,
    name: str,
    title: str,
    caption: str,
    command: str,
    tips: Mapping[str, str] = {},
    panels: Mapping[str, Any] = {},
) -> Drawing:
    """Render a figure; call it inside `style`.

    Args:
        figure: What was drawn.
        name: File name without suffix.
        title: Heading.
        caption: What is shown and what to look for.
        command: What made it; is written into the files.
        tips: Text for elements whose ``gid`` was set, shown on hover in the page.
        panels: Axes that the page's script draws into, by name.
    """
    import matplotlib as mpl

    mpl.rcParams["svg.hashsalt"] = name  # the same input gives the same file
    svg, png = io.StringIO(), io.BytesIO()
    about = {"Title": title, "Description": f"{title}. {caption} Made by: {command}"}
    figure.savefig(svg, format="svg", metadata={**about, "Date": None}, dpi=PNG_DPI)
    figure.savefig(png, format="png", metadata=about, dpi=PNG_DPI)
    width = float(figure.get_size_inches()[0])
    places = {name: _panel(figure, ax) for name, ax in panels.items()}
    return Drawing(name, title, caption, svg.getvalue(), png.getvalue(), width, dict(tips), places)


def _panel(figure: Any, ax: Any) -> Panel:
    """Return where axes lie; the figure was drawn."""
    width, height = (72.0 * float(inches) for inches in figure.get_size_inches())
    x0, y0, x1, y1 = (float(part) for part in ax.get_position().extents)
    (left, right), (bottom, top) = ax.get_xlim(), ax.get_ylim()
    x, y = (float(left), float(right)), (float(bottom), float(top))
    return Panel(x0 * width, (1.0 - y1) * height, x1 * width, (1.0 - y0) * height, x, y)


def inline_svg(drawing: Drawing) -> str:
    """Return a drawing as an ``<svg>`` element for the page.

    Its ids are made unique in the page, its colours follow the page's, and elements with a
    tip show it on hover.
    """
    svg = drawing.svg[drawing.svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.S)
    svg = re.sub(r"<title>.*?</title>\s*", "", svg, count=1, flags=re.S)
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{drawing.name}-", svg)
    for color, variable in _VARIABLES.items():
        svg = svg.replace(color, f"var(--{variable})")
    svg = svg.replace(f"'{_FONT}'", f"'{_FONT}', Verdana, sans-serif")
    for gid, tip in drawing.tips.items():
        opening = f'<g id="{drawing.name}-{gid}">'
        svg = svg.replace(opening, f"{opening}<title>{escape(tip)}</title>", 1)
    label = escape(f"{drawing.title}. {drawing.caption}", quote=True)
    svg = re.sub(r'^<svg ([^>]*?)width="[^"]*"', r"<svg \1", svg)
    svg = re.sub(r'^<svg ([^>]*?)height="[^"]*"', r"<svg \1", svg)
    return svg.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1).strip()
