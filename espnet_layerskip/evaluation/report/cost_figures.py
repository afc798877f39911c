"""Accuracy against cost: thresholds and extensions beside full depth, early exit and stock."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from espnet_layerskip.evaluation.report import canvas
from espnet_layerskip.evaluation.report.canvas import Drawing
from espnet_layerskip.evaluation.report.labels import Label, place_labels
from espnet_layerskip.evaluation.report.sweep import (
    EXIT_KIND,
    OFF_KIND,
    ON_KIND,
    Point,
    sweep_lines,
)
from espnet_layerskip.evaluation.report.templates import caption

_LINES = (
    (canvas.BLUE, "o", "-"),
    (canvas.GREEN, "^", "-."),
    (canvas.PURPLE, "s", "--"),
    (canvas.MUTED, "v", ":"),
)
_MARGIN = 0.12  # around the points that the axes are made for
_MIN_WER_SPAN = 0.6  # points: a smaller range would make much of nothing


@canvas.style()
def draw_flops(points: Sequence[Point], command: str, not_shown: Sequence[str] = ()) -> Drawing:
    """Draw WER against encoder FLOPs."""
    xlabel = "encoder GFLOPs per second of audio"
    figure, tips = _scatter(points, xlabel, lambda p: p.gflops)
    thresholds = [p.threshold for p in points if p.is_swept]
    about = caption(
        "wer_flops", low=min(thresholds), high=max(thresholds), not_shown=list(not_shown)
    )
    title = "WER against encoder FLOPs"
    return canvas.finish(figure, "wer_flops", title, about, command, tips)


@canvas.style()
def draw_time(
    points: Sequence[Point],
    threads: int,
    utterances: int,
    command: str,
    not_shown: Sequence[str] = (),
) -> Drawing:
    """Draw WER against encoder time."""
    xlabel = "encoder time per second of audio (ms)"
    figure, tips = _scatter(points, xlabel, lambda p: p.time_ms.difference)
    about = caption("wer_time", threads=threads, utterances=utterances, not_shown=list(not_shown))
    return canvas.finish(figure, "wer_time", "WER against encoder time", about, command, tips)


@canvas.style()
def draw_changes_of_wer(points: Sequence[Point], command: str) -> Drawing:
    """Draw the paired difference of every row to skipping off."""
    rows = list(reversed(points))
    labels = [textwrap.fill(f"{p.name} ({100 * p.skip_ratio:.0f} %)", 40) for p in rows]
    pitch = 0.17 * (1 + max(label.count("\n") for label in labels)) + 0.1  # inches
    figure = canvas.new_figure(1.5 + pitch * len(rows))
    ax = figure.subplots()
    tips = {}
    for y, point in enumerate(rows):
        marker, color = ("o", canvas.BLUE) if point.is_swept else ("D", canvas.INK)
        if point.failure:
            marker, color = "X", canvas.VERMILLION
        gid = _gid(points, point)
        ax.plot([point.change.low, point.change.high], [y, y], color=color, lw=1.3)
        ax.plot(point.change.difference, y, marker, color=color, ms=5.5, gid=gid)
        tips[gid] = _tip(point)
    ax.axvline(0.0, color=canvas.MUTED, lw=1.0)
    ax.set_yticks(range(len(rows)), labels, fontsize=9)
    ax.set_ylim(-0.7, len(rows) - 0.3)
    ax.grid(visible=False, axis="y")
    ax.set_xlabel("WER change (percent points)")
    _legend(figure, points, [])
    title = "What each setting changes, paired"
    return canvas.finish(figure, "wer_change", title, caption("wer_change"), command, tips)


def _scatter(
    points: Sequence[Point], xlabel: str, cost: Callable[[Point], float]
) -> tuple[Any, dict[str, str]]:
    """Draw WER against a cost; return the figure and the tips of its markers.

    The axes are made for our weights with and without skipping. A row that lies outside stands
    at the edge, with an arrow and its numbers.
    """
    figure = canvas.new_figure(4.4)
    ax = figure.subplots()
    inner = [p for p in points if p.own and p.kind != EXIT_KIND]
    xlim = _limits([cost(p) for p in inner], 0.02 * max(cost(p) for p in inner))
    ylim = _limits([p.wer.difference for p in inner], _MIN_WER_SPAN)
    ax.set_xlim(*xlim)
    ax.set_ylim(*ylim)
    ax.set_xlabel(xlabel)
    ax.set_ylabel("WER (%)")
    ax.locator_params(axis="x", nbins=4)
    lines = list(zip(sweep_lines(points).items(), _LINES, strict=False))
    looks: dict[int, tuple[str, str]] = {}
    for (_, line), (color, marker, dash) in lines:
        ax.plot([cost(p) for p in line], [p.wer.difference for p in line], dash, color=color)
        looks |= {id(p): (color, marker) for p in line}
    tips, labels = {}, []
    for point in points:
        x, y = cost(point), point.wer.difference
        color, marker = looks.get(id(point), (canvas.INK, "P" if point.kind == OFF_KIND else "D"))
        if point.failure:
            marker, color = "X", canvas.VERMILLION
        shown = float(np.clip(x, *_within(xlim))), float(np.clip(y, *_within(ylim)))
        outside = shown != (x, y)
        text = textwrap.fill(point.short_name, 26)
        if outside:
            text += f"\n{_arrow(x, y, shown)} {x:.3g}, WER {y:.1f}"
        gid = _gid(points, point)
        fill = color if point.own else canvas.PAPER
        ax.plot(*shown, marker, color=color, mfc=fill, ms=6, gid=gid)
        if point.own and point.kind == ON_KIND:
            ax.plot(*shown, "o", mfc="none", mec=color, ms=13, mew=1.3)
        tips[gid] = _tip(point)
        labels.append((point.is_swept, Label(*shown, text, color)))
    _legend(figure, points, [(f"extension {e[0]},{e[1]}", look) for (e, _), look in lines])
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # from here on the labels' places hold
    place_labels(ax, [label for _, label in sorted(labels, key=lambda found: found[0])])
    return figure, tips


def _legend(
    figure: Any, points: Sequence[Point], lines: Sequence[tuple[str, tuple[str, str, str]]]
) -> None:
    """Say above the axes what lines and markers mean."""
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=color, marker=marker, ls=dash, ms=5, label=label)
        for label, (color, marker, dash) in lines
    ]
    if any(p.failure for p in points):
        failed = "failed: too many errors"
        handles.append(Line2D([], [], marker="X", ls="", color=canvas.VERMILLION, label=failed))
    if handles:
        figure.legend(handles=handles, loc="outside upper left", ncols=2, columnspacing=1.2)


def _limits(values: Sequence[float], least: float) -> tuple[float, float]:
    """Return limits around values, at least so far apart."""
    low, high = min(values), max(values)
    middle, span = (low + high) / 2, max(high - low, least) * (1 + 2 * _MARGIN)
    return middle - span / 2, middle + span / 2


def _within(limits: tuple[float, float]) -> tuple[float, float]:
    """Return where a point at the edge is drawn: a little inside."""
    low, high = limits
    inset = 0.03 * (high - low)
    return low + inset, high - inset


def _arrow(x: float, y: float, shown: tuple[float, float]) -> str:
    """Return an arrow towards where a point really is."""
    across = (x > shown[0]) - (x < shown[0])
    up = (y > shown[1]) - (y < shown[1])
    rows = {1: "\u2196\u2191\u2197", 0: "\u2190 \u2192", -1: "\u2199\u2193\u2198"}
    return rows[up][across + 1]


def _gid(points: Sequence[Point], point: Point) -> str:
    """Return the id of a row's marker, the same in all figures."""
    return f"row{next(i for i, p in enumerate(points) if p is point)}"


def _tip(point: Point) -> str:
    wer, change = point.wer, point.change
    failed = f" Failed: {point.failure}." if point.failure else ""
    return (
        f"{point.name}: WER {wer.difference:.2f} % [{wer.low:.2f}, {wer.high:.2f}], against "
        f"skipping off {change}, {100 * point.skip_ratio:.1f} % of frames skipped, "
        f"{point.gflops:.3f} GFLOPs and {point.time_ms.difference:.2f} ms per second of audio."
        f"{failed}"
    )
