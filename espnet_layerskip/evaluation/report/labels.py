"""Labels beside points: where they go so that none covers another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

FONT_SIZE = 8.0  # points
GAP = 9.0  # points from the middle of a marker to its label
PAD = 0.15  # of the font size, around a label: browsers give a line more room than its ink takes
# Where a label may lie beside its point: to the right, left, above, below, then between these.
_SIDES = (
    *((1.0, 0.0), (-1.0, 0.0), (0.0, 1.0), (0.0, -1.0)),
    *((x, y) for y in (1.0, -1.0, 0.5, -0.5) for x in (1.0, -1.0)),
)
_REACHES = (1.0, 1.5, 2.2, 3.0)  # of the gap


class Label(NamedTuple):
    """A label that is wanted.

    Attributes:
        x, y: Of its point, in data.
        text: What is written.
        color: Of the text.
    """

    x: float
    y: float
    text: str
    color: str


def place_labels(ax: Any, labels: Sequence[Label]) -> list[Label]:
    """Write labels beside their points, the first ones first; return those without room.

    A label keeps clear of all points, of the labels before it and of the edges of the axes. A
    label away from its point has a thin line to it. Call it when the limits are set; the layout
    must not change after it.

    Args:
        ax: The axes.
        labels: The more important ones first.
    """
    figure = ax.figure
    figure.draw_without_rendering()
    renderer = figure.canvas.get_renderer() if hasattr(figure.canvas, "get_renderer") else None
    scale = figure.dpi / 72.0
    at = np.asarray(ax.transData.transform([(one.x, one.y) for one in labels]))
    half, pad = 3.5 * scale, PAD * FONT_SIZE * scale
    taken = [(x - half, y - half, x + half, y + half) for x, y in at]
    edges = ax.get_window_extent(renderer)
    left_out = []
    for (x, y), label in zip(at, labels, strict=True):
        text = ax.annotate(
            *(label.text, (label.x, label.y), (0, 0)),
            textcoords="offset points", fontsize=FONT_SIZE, color=label.color,
        )  # fmt: skip
        box = text.get_window_extent(renderer)
        size = box.width + 2 * pad, box.height + 2 * pad
        for reach in _REACHES:
            place = next(
                (
                    found
                    for side in _SIDES
                    if _free(found := _beside(x, y, side, reach * GAP * scale, size), taken, edges)
                ),
                None,
            )
            if place is not None:
                break
        text.remove()
        if place is None:
            left_out.append(label)
            continue
        taken.append(place)
        x0, y0, *_ = place
        ax.annotate(
            *(label.text, (label.x, label.y), ((x0 + pad - x) / scale, (y0 + pad - y) / scale)),
            textcoords="offset points", fontsize=FONT_SIZE, color=label.color,
            arrowprops=_line(label.color) if reach > 1.0 else None, ha="left", va="bottom",
        )  # fmt: skip
    return left_out


def _line(color: str) -> dict[str, Any]:
    return {"arrowstyle": "-", "color": color, "lw": 0.5, "shrinkA": 0, "shrinkB": 3}


def _beside(
    x: float, y: float, side: tuple[float, float], gap: float, size: tuple[float, float]
) -> tuple[float, float, float, float]:
    """Return the box (x0, y0, x1, y1) of a label of a size at one side of a point, in pixels."""
    (dx, dy), (width, height) = side, size
    x0 = x + dx * gap - width * (1 - dx) / 2
    y0 = y + dy * gap - height * (1 - dy) / 2
    return x0, y0, x0 + width, y0 + height


def _free(
    box: tuple[float, float, float, float],
    taken: Sequence[tuple[float, float, float, float]],
    edges: Any,
) -> bool:
    x0, y0, x1, y1 = box
    inside = x0 >= edges.x0 and x1 <= edges.x1 and y0 >= edges.y0 and y1 <= edges.y1
    return inside and all(x1 <= a or c <= x0 or y1 <= b or d <= y0 for a, b, c, d in taken)
