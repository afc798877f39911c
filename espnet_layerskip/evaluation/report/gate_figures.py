"""The gate by itself: precision and recall, reliability, and who skips how much."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from espnet_layerskip.evaluation.report import canvas
from espnet_layerskip.evaluation.report.canvas import Drawing
from espnet_layerskip.evaluation.report.gate_accuracy import (
    NUM_BINS,
    calibration_error,
    precision_and_recall,
    reliability,
)
from espnet_layerskip.evaluation.report.templates import caption
from espnet_layerskip.evaluation.report.traces import Trace

# Where the curves have points, and which of these the axis names.
_CURVE = (0.1, 0.2, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.97, 0.99, 0.995, 0.999)
_TICKS = (0.1, 0.3, 0.5, 0.7, 0.9, 0.97, 0.99, 0.999)
_LOOKS = (("precision", canvas.BLUE, "o"), ("recall", canvas.VERMILLION, "s"))


@canvas.style()
def draw_precision_recall(traces: Sequence[Trace], command: str) -> Drawing:
    """Draw precision and recall of every gate against its threshold."""
    gates = traces[0].gates
    figure = canvas.new_figure(0.6 + 3.2 * len(gates))
    axes = figure.subplots(len(gates), 1, squeeze=False)[:, 0]
    configured = []
    for number, (gate, ax) in enumerate(zip(gates, axes, strict=True)):
        curves = zip(*(precision_and_recall(traces, number, t) for t in _CURVE), strict=True)
        for (label, color, marker), shares in zip(_LOOKS, curves, strict=True):
            xs = [t for t, share in zip(_CURVE, shares, strict=True) if share is not None]
            found = [share for share in shares if share is not None]
            ys = [share.difference for share in found]
            ax.plot(xs, ys, marker=marker, ms=4, color=color, label=label)
            low, high = [share.low for share in found], [share.high for share in found]
            ax.fill_between(xs, low, high, color=color, alpha=0.18, lw=0)
        ax.axvline(gate.threshold, color=canvas.MUTED, ls=":", label="configured threshold")
        ax.set_xscale("logit")
        ax.set_xlim(_CURVE[0] * 0.9, 1 - (1 - _CURVE[-1]) * 0.8)
        ax.set_xticks(_TICKS, [f"{t:g}" for t in _TICKS])
        ax.minorticks_off()
        ax.set_ylabel("frames (%)")
        ax.set_title(f"gate after layer {gate.layer_idx}")
        now = precision_and_recall(traces, number, gate.threshold)
        configured.append((gate.layer_idx, gate.threshold, *now))
    axes[-1].set_xlabel("blank threshold (logit scale)")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=3, columnspacing=1.2)
    about = caption("gate_precision_recall", gates=configured)
    title = "Precision and recall of the gate"
    return canvas.finish(figure, "gate_precision_recall", title, about, command)


@canvas.style()
def draw_reliability(traces: Sequence[Trace], command: str) -> Drawing:
    """Draw how often frames are blank against how sure the gate was, and how many there are."""
    gates = traces[0].gates
    figure = canvas.new_figure(0.4 + 4.4 * len(gates))
    axes = figure.subplots(2 * len(gates), 1, height_ratios=[2.6, 1.0] * len(gates))
    errors = []
    for number, (gate, ax, below) in enumerate(zip(gates, axes[::2], axes[1::2], strict=True)):
        bins = reliability(traces, number)
        ax.plot([0, 1], [0, 100], ls=":", color=canvas.MUTED)
        shown = [(b.mean_prob, b.blank) for b in bins if b.blank is not None]
        for x, blank in shown:
            ax.plot([x, x], [blank.low, blank.high], color=canvas.BLUE, lw=1.2)
        ax.plot([x for x, _ in shown], [b.difference for _, b in shown], "o-", c=canvas.BLUE)
        ax.set_ylabel("blank at the\nfinal layer (%)")
        ax.set_title(f"gate after layer {gate.layer_idx}; dotted: perfectly calibrated")
        ax.set_ylim(-4, 104)
        centres = (np.arange(NUM_BINS) + 0.5) / NUM_BINS
        below.bar(
            centres, [b.num_frames for b in bins], 0.9 / NUM_BINS, color=canvas.SKY, ec=canvas.BLUE
        )
        below.set_yscale("log")
        below.set_ylim(bottom=0.8)
        below.set_ylabel("frames")
        below.set_xlabel("p(blank) at the gate")
        ax.set_xlim(-0.02, 1.02)
        below.set_xlim(-0.02, 1.02)
        errors.append((gate.layer_idx, calibration_error(bins)))
    figure.align_ylabels(axes)
    about = caption("gate_reliability", errors=errors)
    return canvas.finish(figure, "gate_reliability", "Reliability of the gate", about, command)


@canvas.style()
def draw_skip_ratio(traces: Sequence[Trace], command: str) -> Drawing:
    """Draw the skip ratio of every utterance against its speaking rate."""
    rates = np.array([t.token_rate for t in traces])
    ratios = np.array([100 * t.skip_ratio for t in traces])
    figure = canvas.new_figure(4.2)
    ax = figure.subplots()
    tips = {}
    for i, (trace, rate, ratio) in enumerate(zip(traces, rates, ratios, strict=True)):
        gid = f"utterance{i}"
        marker, size, color = "o", 5, canvas.BLUE
        if trace.text_on != trace.text_off:
            marker, size, color = "^", 7, canvas.VERMILLION
        look = {"ms": size, "color": color, "mec": canvas.PAPER, "mew": 0.5, "alpha": 0.9}
        ax.plot(rate, ratio, marker, gid=gid, **look)
        tips[gid] = (
            f"{trace.utt_id}: {ratio:.1f} % skipped, {rate:.1f} tokens/s, {trace.seconds:.1f} s: "
            f"{trace.text_on or '(nothing)'}"
        )
    most = np.linspace(0.0, max(rates) * 1.05, 20)
    bound = np.clip(100 * (1 - most * np.median([t.frame_seconds for t in traces])), 0, 100)
    ax.plot(most, bound, ls="--", lw=1.2, color=canvas.MUTED, label="one frame a token")
    ax.plot([], [], "o", color=canvas.BLUE, label="text as with skipping off")
    ax.plot([], [], "^", color=canvas.VERMILLION, label="text changed")
    ax.set_xlabel("reference tokens per second of audio")
    ax.set_ylabel("frames skipped (%)")
    ax.set_xlim(left=0.0)
    ax.set_ylim(0, 103)
    figure.legend(loc="outside upper left", ncols=2, columnspacing=1.2)
    about = caption("skip_ratio", correlation=_rank_correlation(rates, ratios))
    title = "Frames skipped against speaking rate"
    return canvas.finish(figure, "skip_ratio", title, about, command, tips)


def _rank_correlation(x: np.ndarray, y: np.ndarray) -> float | None:
    """Return Spearman's rank correlation; None where it is not defined."""
    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    from scipy.stats import spearmanr

    return float(spearmanr(x, y).statistic)
