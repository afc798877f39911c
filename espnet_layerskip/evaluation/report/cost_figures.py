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
    SWEEP_KIND,
    Point,
    sweep_lines,
)
from espnet_layerskip.evaluation.scoring import Interval

_LINES = (
    (canvas.BLUE, "o", "-"),
    (canvas.VERMILLION, "s", "--"),
    (canvas.GREEN, "^", "-."),
    (canvas.PURPLE, "v", ":"),
)
_OWN_MARKERS = {OFF_KIND: "P", EXIT_KIND: "X"}
_OTHER_MARKERS = ("D", "p", "<", ">", "h", "d", "8", "*")


def draw_flops(points: Sequence[Point], command: str) -> Drawing:
    """Draw WER against encoder FLOPs."""
    caption = (
        "Every point is the whole test set; bars are 95 % intervals of a bootstrap over its "
        "utterances. Lines: our weights with a gate threshold from {low:g} to {high:g}, one line "
        "for each spike extension (frames kept left and right of a non-blank one); the ring is the "
        "setting of the configuration. Look for a line that runs to the left (cheaper) without "
        "rising, and that stays below the cross: stopping all frames at the gate's layer costs "
        "least, and is what a gate has to beat. FLOPs are counted while the encoder runs: 2 per "
        "multiply-accumulate."
    )
    return _draw(
        points,
        "wer_flops",
        "WER against encoder FLOPs",
        "encoder GFLOPs per second of audio",
        lambda p: Interval(p.gflops, p.gflops, p.gflops),
        caption,
        command,
    )


def draw_time(points: Sequence[Point], threads: int, utterances: int, command: str) -> Drawing:
    """Draw WER against encoder time."""
    caption = (
        f"The same rows against time: encoder only (features to encoder output), batch 1, "
        f"{threads} CPU thread{'s' if threads > 1 else ''}, {utterances} utterances spread over "
        "the durations; median of interleaved passes, horizontal bars from the shortest to the "
        "longest pass. Look whether fewer FLOPs are less time as well: short utterances hardly "
        "gain, because gathering frames costs and the subsampling cannot be skipped. Wide "
        "horizontal bars mean that the machine was busy: measure again on an idle one."
    )
    return _draw(
        points,
        "wer_time",
        "WER against encoder time",
        "encoder time per second of audio (ms)",
        lambda p: p.time_ms,
        caption,
        command,
    )


def draw_changes_of_wer(points: Sequence[Point], command: str) -> Drawing:
    """Draw the paired difference of every row to skipping off."""
    caption = (
        "WER of each row minus WER with skipping off, paired on the same utterances, so these "
        "intervals are narrower than those of the WERs themselves: 95 % bootstrap over "
        "utterances, one training. Look for rows whose bar crosses the line at zero (no loss that "
        "this test set can show) and among them for the one with the most frames skipped (in "
        "brackets). Right of the line skipping makes more errors."
    )
    rows = list(reversed(points))
    labels = [_row_label(point) for point in rows]
    pitch = 0.17 * (1 + max(label.count("\n") for label in labels)) + 0.1  # inches
    with canvas.style():
        figure = canvas.new_figure(1.2 + pitch * len(rows))
        ax = figure.subplots()
        tips = {}
        for y, point in enumerate(rows):
            own = _is_swept(point)
            color = canvas.BLUE if own else canvas.INK
            difference = point.change
            [line] = ax.plot(difference.difference, y, "o" if own else "D", color=color, ms=5.5)
            line.set_gid(f"row{y}")
            tips[f"row{y}"] = _tip(point)
            ax.plot([difference.low, difference.high], [y, y], color=color, lw=1.3)
        ax.axvline(0.0, color=canvas.MUTED, lw=1.0)
        ax.set_yticks(range(len(rows)), labels, fontsize=9)
        ax.set_ylim(-0.7, len(rows) - 0.3)
        ax.grid(visible=False, axis="y")
        ax.set_xlabel("WER change (percent points)")
        title = "What each setting changes, paired"
        return canvas.finish(figure, "wer_change", title, caption, command, tips)


def _draw(
    points: Sequence[Point],
    name: str,
    title: str,
    xlabel: str,
    cost: Callable[[Point], Interval],
    caption: str,
    command: str,
) -> Drawing:
    lines = sweep_lines(points)
    others = [p for p in points if not _is_swept(p)]
    with canvas.style():
        figure = canvas.new_figure(3.4 + 0.19 * (len(lines) + len(others)))
        ax = figure.subplots()
        tips: dict[str, str] = {}
        for (extension, line), (color, marker, dash) in zip(lines.items(), _LINES, strict=False):
            xs = [cost(p).difference for p in line]
            ax.plot(
                xs, [p.wer.difference for p in line], dash, color=color, marker=marker, ms=5,
                label=f"gate, extension {extension[0]},{extension[1]}",
            )  # fmt: skip
            for point in line:
                _bars(ax, point, cost(point), color)
                _tipped(ax, tips, point, cost(point), marker, color, 5)
                if point.kind == ON_KIND:
                    ring = cost(point).difference
                    ax.plot(ring, point.wer.difference, "o", mfc="none", mec=color, ms=13, mew=1.5)
        for i, point in enumerate(others):
            _bars(ax, point, cost(point), canvas.INK)
            marker = _OWN_MARKERS.get(point.kind, "o")
            fill = canvas.INK
            if not point.own:
                marker, fill = _OTHER_MARKERS[i % len(_OTHER_MARKERS)], canvas.PAPER
            _tipped(ax, tips, point, cost(point), marker, fill, 8, textwrap.fill(point.name, 55))
        ax.set_xlabel(xlabel)
        ax.set_ylabel("WER (%)")
        ax.margins(0.08)
        figure.legend(loc="outside upper left", ncols=1)
        thresholds = [p.settings.threshold or 1.0 for line in lines.values() for p in line]
        text = caption.format(low=min(thresholds), high=max(thresholds))
        return canvas.finish(figure, name, title, text, command, tips)


def _is_swept(point: Point) -> bool:
    return point.own and point.kind in (SWEEP_KIND, ON_KIND)


def _bars(ax: Any, point: Point, cost: Interval, color: str) -> None:
    """Draw the intervals of a point in both directions."""
    x, y = cost.difference, point.wer.difference
    ax.plot([x, x], [point.wer.low, point.wer.high], color=color, lw=0.8, alpha=0.45)
    ax.plot([cost.low, cost.high], [y, y], color=color, lw=0.8, alpha=0.45)


def _tipped(
    ax: Any,
    tips: dict[str, str],
    point: Point,
    cost: Interval,
    marker: str,
    fill: str,
    size: int,
    label: str | None = None,
) -> None:
    """Draw a marker that tells its numbers where the page is hovered over."""
    edge = canvas.INK if fill == canvas.PAPER else fill
    [line] = ax.plot(
        cost.difference, point.wer.difference, marker, color=edge, mfc=fill, mec=edge, ms=size,
        label=label, ls="none",
    )  # fmt: skip
    gid = f"point{len(tips)}"
    line.set_gid(gid)
    tips[gid] = _tip(point)


def _tip(point: Point) -> str:
    wer, change = point.wer, point.change
    return (
        f"{point.name}: WER {wer.difference:.2f} % [{wer.low:.2f}, {wer.high:.2f}], against "
        f"skipping off {change}, {100 * point.skip_ratio:.1f} % of frames skipped, "
        f"{point.gflops:.3f} GFLOPs and {point.time_ms.difference:.2f} ms per second of audio"
    )


def _row_label(point: Point) -> str:
    return textwrap.fill(f"{point.name} ({100 * point.skip_ratio:.0f} %)", 40)
