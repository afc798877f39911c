"""A benchmark as a figure: time of every row of a condition, with its WER."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from espnet_layerskip.evaluation.report import canvas
from espnet_layerskip.evaluation.report.canvas import Drawing
from espnet_layerskip.evaluation.report.templates import caption
from espnet_layerskip.evaluation.speedups import HEADLINE
from espnet_layerskip.evaluation.tables import threads

SCOPE_TITLES = {
    "encoder": "Encoder",
    "model": "Model: frontend to head",
    "e2e": "End to end: wave file to text",
}
# Of a kind of row: label, colour and hatching.
_LOOKS = (
    ("ours, skipping", canvas.BLUE, ""),
    ("ours, all frames the same layers", canvas.SKY, ""),
    ("ESPnet's classes (these weights or the twin's)", canvas.VERMILLION, "//"),
    ("other weights (twins)", canvas.PURPLE, ".."),
)
_ROW_INCHES, _PANEL_INCHES, _FIGURE_WIDTH = 0.24, 0.75, 7.5


@canvas.style()
def draw_benchmark(report: Mapping[str, Any], command: str) -> Drawing:
    """Draw the headline's condition, or the first that was measured; a panel for each scope."""
    rows = report["rows"]
    keys = [_key(row) for row in rows]
    key = HEADLINE if HEADLINE in keys else keys[0]
    here = [row for row, k in zip(rows, keys, strict=True) if k == key]
    scopes = [s for s in SCOPE_TITLES if any(row["scope"] == s for row in here)]
    panels = [[row for row in here if row["scope"] == scope] for scope in scopes]
    seconds, batch_size, number = key
    where = f"{seconds:g} s of audio, batch {batch_size}, {threads(number)}"
    heights = [_PANEL_INCHES + _ROW_INCHES * len(panel) for panel in panels]
    figure = canvas.new_figure(sum(heights) + 0.7, _FIGURE_WIDTH)
    axes = figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights)[:, 0]
    for ax, scope, panel in zip(axes, scopes, panels, strict=True):
        ax.set_title(f"{SCOPE_TITLES[scope]} ({where})")
        _draw_panel(ax, panel)
    axes[-1].set_xlabel("time for one batch (ms)")
    handles = {h.get_label(): h for ax in axes for h in ax.get_legend_handles_labels()[0]}
    figure.legend(handles=list(handles.values()), loc="outside upper left", ncols=2)
    about = caption("benchmark", where=where)
    return canvas.finish(figure, "benchmark", "Speed and accuracy", about, command)


def _draw_panel(ax: Any, rows: Sequence[Mapping[str, Any]]) -> None:
    labels = []
    for y, row in enumerate(rows):
        wer = "no WER" if row["wer"] is None else f"WER {row['wer']:.1f}"
        labels.append(f"{row['name']} ({wer})")
        if row["status"] != "ok" or row["median_s"] is None:
            _write(ax, 0.0, y, "failed")
            continue
        label, color, hatch = _look(row)
        median, low, high = (1e3 * row[name] for name in ("median_s", "min_s", "max_s"))
        ax.barh(y, median, 0.62, color=color, hatch=hatch, edgecolor=canvas.PAPER, label=label)
        ax.plot([low, high], [y, y], color=canvas.INK, lw=1.3)
        _write(ax, max(high, median), y, f"{median:.3g}")
    ax.margins(x=0.14)
    ax.set_xlim(left=0.0)
    ax.set_yticks(range(len(rows)), labels, fontsize=9)
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.grid(visible=False, axis="y")


def _write(ax: Any, x: float, y: float, text: str) -> None:
    ax.annotate(
        text, (x, y), xytext=(5, 0), textcoords="offset points", va="center", fontsize=8,
        color=canvas.MUTED,
    )  # fmt: skip


def _look(row: Mapping[str, Any]) -> tuple[str, str, str]:
    name = row["name"]
    if name.startswith("stock"):
        return _LOOKS[2]
    if name.startswith("twin"):
        return _LOOKS[3]
    return _LOOKS[0] if "skip_on" in name else _LOOKS[1]


def _key(row: Mapping[str, Any]) -> tuple[float, int, int]:
    return row["audio_seconds"], row["batch_size"], row["threads"]
