"""Accuracy against cost: thresholds and extensions beside full depth, early exit and stock."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from typing import Any

from espnet_layerskip.evaluation.report import canvas
from espnet_layerskip.evaluation.report.canvas import Drawing
from espnet_layerskip.evaluation.report.sweep import (
    EXIT_KIND,
    OFF_KIND,
    ON_KIND,
    Point,
    sweep_lines,
)
from espnet_layerskip.evaluation.report.templates import caption
from espnet_layerskip.evaluation.scoring import Interval

_LINES = (
    (canvas.BLUE, "o", "-"),
    (canvas.VERMILLION, "s", "--"),
    (canvas.GREEN, "^", "-."),
    (canvas.PURPLE, "v", ":"),
)
_OWN_MARKERS = {OFF_KIND: "P", EXIT_KIND: "X"}
_OTHER_MARKERS = ("D", "p", "<", ">", "h", "d", "8", "*")


@canvas.style()
def draw_flops(points: Sequence[Point], command: str) -> Drawing:
    """Draw WER against encoder FLOPs."""
    figure, tips = _scatter(
        points,
        "encoder GFLOPs per second of audio",
        lambda p: Interval(p.gflops, p.gflops, p.gflops),
    )
    thresholds = [p.threshold for p in points if p.is_swept]
    about = caption("wer_flops", low=min(thresholds), high=max(thresholds))
    title = "WER against encoder FLOPs"
    return canvas.finish(figure, "wer_flops", title, about, command, tips)


@canvas.style()
def draw_time(points: Sequence[Point], threads: int, utterances: int, command: str) -> Drawing:
    """Draw WER against encoder time."""
    figure, tips = _scatter(points, "encoder time per second of audio (ms)", lambda p: p.time_ms)
    about = caption("wer_time", threads=threads, utterances=utterances)
    return canvas.finish(figure, "wer_time", "WER against encoder time", about, command, tips)


@canvas.style()
def draw_changes_of_wer(points: Sequence[Point], command: str) -> Drawing:
    """Draw the paired difference of every row to skipping off."""
    rows = list(reversed(points))
    labels = [textwrap.fill(f"{p.name} ({100 * p.skip_ratio:.0f} %)", 40) for p in rows]
    pitch = 0.17 * (1 + max(label.count("\n") for label in labels)) + 0.1  # inches
    figure = canvas.new_figure(1.2 + pitch * len(rows))
    ax = figure.subplots()
    tips = {}
    for y, point in enumerate(rows):
        marker, color = ("o", canvas.BLUE) if point.is_swept else ("D", canvas.INK)
        ax.plot([point.change.low, point.change.high], [y, y], color=color, lw=1.3)
        ax.plot(point.change.difference, y, marker, color=color, ms=5.5, gid=f"row{y}")
        tips[f"row{y}"] = _tip(point)
    ax.axvline(0.0, color=canvas.MUTED, lw=1.0)
    ax.set_yticks(range(len(rows)), labels, fontsize=9)
    ax.set_ylim(-0.7, len(rows) - 0.3)
    ax.grid(visible=False, axis="y")
    ax.set_xlabel("WER change (percent points)")
    title = "What each setting changes, paired"
    return canvas.finish(figure, "wer_change", title, caption("wer_change"), command, tips)


def _scatter(
    points: Sequence[Point], xlabel: str, cost: Callable[[Point], Interval]
) -> tuple[Any, dict[str, str]]:
    """Draw WER against a cost; return the figure and the tips of its markers."""
    lines = sweep_lines(points)
    others = [p for p in points if not p.is_swept]
    figure = canvas.new_figure(3.4 + 0.19 * (len(lines) + len(others)))
    ax = figure.subplots()
    tips: dict[str, str] = {}

    def mark(point: Point, marker: str, color: str, **look: Any) -> None:
        """Draw a marker with its intervals; it tells its numbers where it is hovered over."""
        x, y = cost(point), point.wer
        bars = {"color": color, "lw": 0.8, "alpha": 0.45}
        ax.plot([x.difference] * 2, [y.low, y.high], **bars)
        ax.plot([x.low, x.high], [y.difference] * 2, **bars)
        gid = f"point{len(tips)}"
        ax.plot(x.difference, y.difference, marker, color=color, gid=gid, **look)
        tips[gid] = _tip(point)

    for (extension, line), (color, marker, dash) in zip(lines.items(), _LINES, strict=False):
        xs, ys = [cost(p).difference for p in line], [p.wer.difference for p in line]
        label = f"gate, extension {extension[0]},{extension[1]}"
        ax.plot(xs, ys, dash, color=color, marker=marker, ms=5, label=label)
        for point, x, y in zip(line, xs, ys, strict=True):
            mark(point, marker, color, ms=5)
            if point.kind == ON_KIND:
                ax.plot(x, y, "o", mfc="none", mec=color, ms=13, mew=1.5)
    for i, point in enumerate(others):
        marker, fill = _OWN_MARKERS.get(point.kind, "o"), canvas.INK
        if not point.own:
            marker, fill = _OTHER_MARKERS[i % len(_OTHER_MARKERS)], canvas.PAPER
        mark(point, marker, canvas.INK, mfc=fill, ms=8, label=textwrap.fill(point.name, 55))
    ax.set_xlabel(xlabel)
    ax.set_ylabel("WER (%)")
    ax.margins(0.08)
    figure.legend(loc="outside upper left", ncols=1)
    return figure, tips


def _tip(point: Point) -> str:
    wer, change = point.wer, point.change
    return (
        f"{point.name}: WER {wer.difference:.2f} % [{wer.low:.2f}, {wer.high:.2f}], against "
        f"skipping off {change}, {100 * point.skip_ratio:.1f} % of frames skipped, "
        f"{point.gflops:.3f} GFLOPs and {point.time_ms.difference:.2f} ms per second of audio"
    )
