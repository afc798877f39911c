"""The gate by itself: precision and recall, reliability, and who skips how much."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from espnet_layerskip.evaluation.report import canvas
from espnet_layerskip.evaluation.report.canvas import Drawing
from espnet_layerskip.evaluation.report.gate_accuracy import (
    NUM_BINS,
    THRESHOLDS,
    calibration_error,
    gate_accuracy,
    reliability,
)
from espnet_layerskip.evaluation.report.traces import Trace
from espnet_layerskip.evaluation.scoring import Interval


def draw_precision_recall(traces: Sequence[Trace], command: str) -> Drawing:
    """Draw precision and recall of every gate against its threshold."""
    configured = traces[0].threshold
    notes = []
    with canvas.style():
        figure = canvas.new_figure(0.6 + 3.2 * len(traces[0].gates))
        axes = figure.subplots(len(traces[0].gates), 1, squeeze=False)[:, 0]
        for gate, ax in enumerate(axes):
            layer = traces[0].gates[gate].layer_idx
            rows = [gate_accuracy(traces, gate, t) for t in THRESHOLDS]
            for name, color, marker in (
                ("precision", canvas.BLUE, "o"),
                ("recall", canvas.VERMILLION, "s"),
            ):
                found = [(r.threshold, getattr(r, name)) for r in rows]
                _band(ax, [(t, i) for t, i in found if i is not None], color, marker, name)
            ax.axvline(configured, color=canvas.MUTED, ls=":", label="configured threshold")
            ax.set_xscale("logit")
            ax.set_xlim(min(THRESHOLDS) * 0.9, 1 - (1 - max(THRESHOLDS)) * 0.8)
            shown = (0.1, 0.3, 0.5, 0.7, 0.9, 0.97, 0.99, 0.999)
            ax.set_xticks(shown, [f"{t:g}" for t in shown])
            ax.minorticks_off()
            ax.set_ylabel("frames (%)")
            ax.set_title(f"gate after layer {layer}")
            now = gate_accuracy(traces, gate, configured)
            notes.append(
                f"After layer {layer} at the configured {configured:g}: precision "
                f"{_percent(now.precision)}, recall {_percent(now.recall)}."
            )
        axes[-1].set_xlabel("blank threshold (logit scale)")
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper left", ncols=3, columnspacing=1.2)
        caption = (
            "Precision: of the frames that the gate calls blank, the share that is blank at the "
            "final layer with skipping off; what is missing to 100 % are tokens at risk. Recall: "
            "of the frames that are blank at the final layer, the share that the gate finds; what "
            "is missing is work that could have been saved. Look for a precision near 100 % that "
            "hardly moves with the threshold: the gate is then sure where it should be. Bands: "
            "95 % bootstrap over utterances. " + " ".join(notes)
        )
        title = "Precision and recall of the gate"
        return canvas.finish(figure, "gate_precision_recall", title, caption, command)


def draw_reliability(traces: Sequence[Trace], command: str) -> Drawing:
    """Draw how often frames are blank against how sure the gate was, and how many there are."""
    num_gates = len(traces[0].gates)
    notes = []
    with canvas.style():
        figure = canvas.new_figure(0.4 + 4.4 * num_gates)
        axes = figure.subplots(2 * num_gates, 1, height_ratios=[2.6, 1.0] * num_gates)
        for gate in range(num_gates):
            ax, below = axes[2 * gate], axes[2 * gate + 1]
            layer = traces[0].gates[gate].layer_idx
            bins = reliability(traces, gate)
            ax.plot([0, 1], [0, 100], ls=":", color=canvas.MUTED)
            shown = [(b.mean_prob, b.blank) for b in bins if b.blank is not None]
            for x, blank in shown:
                ax.plot([x, x], [blank.low, blank.high], color=canvas.BLUE, lw=1.2)
            ax.plot([x for x, _ in shown], [b.difference for _, b in shown], "o-", c=canvas.BLUE)
            ax.set_ylabel("blank at the\nfinal layer (%)")
            ax.set_title(f"gate after layer {layer}; dotted: perfectly calibrated")
            ax.set_ylim(-4, 104)
            centres = [(b.low + b.high) / 2 for b in bins]
            below.bar(
                centres, [b.count for b in bins], 0.9 / NUM_BINS, color=canvas.SKY, ec=canvas.BLUE
            )
            below.set_yscale("log")
            below.set_ylim(bottom=0.8)
            below.set_ylabel("frames")
            below.set_xlabel("p(blank) at the gate")
            for one in (ax, below):
                one.set_xlim(-0.02, 1.02)
            error = calibration_error(bins)
            notes.append(
                f"After layer {layer} the expected calibration error is {error:.1f} points."
            )
        figure.align_ylabels(axes)
        caption = (
            "Frames sorted by what the gate said, in ten bins; bars are 95 % intervals of a "
            "bootstrap over utterances. Points above the dotted line: the gate is less sure of "
            "blank than it could be; below: it is too sure, and a threshold there drops tokens. "
            "Look at the counts below as well (logarithmic): few frames lie in the middle, so the "
            "threshold matters less than it seems. " + " ".join(notes)
        )
        return canvas.finish(
            figure, "gate_reliability", "Reliability of the gate", caption, command
        )


def draw_skip_ratio(traces: Sequence[Trace], command: str) -> Drawing:
    """Draw the skip ratio of every utterance against its speaking rate."""
    rates = np.array([t.token_rate for t in traces])
    ratios = np.array([100 * t.skip_ratio for t in traces])
    frame_rate = 1.0 / np.median([t.frame_seconds for t in traces])
    with canvas.style():
        figure = canvas.new_figure(4.2)
        ax = figure.subplots()
        tips = {}
        for i, trace in enumerate(traces):
            changed = trace.text_on != trace.text_off
            [dot] = ax.plot(
                trace.token_rate, 100 * trace.skip_ratio, "^" if changed else "o", ls="none",
                ms=7 if changed else 5, mec=canvas.PAPER, mew=0.5, alpha=0.9,
                color=canvas.VERMILLION if changed else canvas.BLUE,
            )  # fmt: skip
            dot.set_gid(f"utterance{i}")
            tips[f"utterance{i}"] = (
                f"{trace.utt_id}: {100 * trace.skip_ratio:.1f} % skipped, {trace.token_rate:.1f} "
                f"tokens/s, {trace.seconds:.1f} s: {trace.text_on or '(nothing)'}"
            )
        line = np.linspace(0.0, max(rates) * 1.05, 20)
        bound = np.clip(100 * (1 - line / frame_rate), 0, 100)
        ax.plot(line, bound, ls="--", lw=1.2, color=canvas.MUTED, label="one frame a token")
        ax.plot([], [], "o", color=canvas.BLUE, label="text as with skipping off")
        ax.plot([], [], "^", color=canvas.VERMILLION, label="text changed")
        ax.set_xlabel("reference tokens per second of audio")
        ax.set_ylabel("frames skipped (%)")
        ax.set_xlim(left=0.0)
        ax.set_ylim(0, 103)
        figure.legend(loc="outside upper left", ncols=2, columnspacing=1.2)
        caption = (
            "One point an utterance. The dashed line is the most that could be skipped if every "
            "token needed one frame of its own. Look for the fall from left to right (fast speech "
            "has fewer blanks), for utterances far below the others (the gate was unsure, or ran "
            f"them at full depth), and where the triangles lie. {_correlation(rates, ratios)}"
        )
        title = "Frames skipped against speaking rate"
        return canvas.finish(figure, "skip_ratio", title, caption, command, tips)


def _band(
    ax: Any, rows: Sequence[tuple[float, Interval]], color: str, marker: str, label: str
) -> None:
    xs = [t for t, _ in rows]
    ax.plot(xs, [i.difference for _, i in rows], marker=marker, ms=4, color=color, label=label)
    ax.fill_between(
        xs, [i.low for _, i in rows], [i.high for _, i in rows], color=color, alpha=0.18, lw=0
    )


def _percent(share: Interval | None) -> str:
    if share is None:
        return "not defined (no such frame)"
    return f"{share.difference:.1f} % [{share.low:.1f}, {share.high:.1f}]"


def _correlation(x: np.ndarray, y: np.ndarray) -> str:
    """Say Spearman's rank correlation; nothing where it is not defined."""
    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return ""
    correlation = np.corrcoef(_ranks(x), _ranks(y))[0, 1]
    return f"Rank correlation (Spearman): {correlation:+.2f}."


def _ranks(values: np.ndarray) -> np.ndarray:
    """Return ranks; equal values share their mean rank."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    ranks: np.ndarray = ((ends - counts + ends - 1) / 2.0)[inverse]
    return ranks
