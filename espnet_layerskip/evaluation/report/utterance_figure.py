"""One utterance from sound to tokens: what the gate saw, kept and what came out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from espnet_layerskip.evaluation.report import canvas
from espnet_layerskip.evaluation.report.canvas import Drawing
from espnet_layerskip.evaluation.report.templates import caption
from espnet_layerskip.evaluation.report.traces import Trace

INCHES_PER_SECOND = 1.1  # of long utterances; short ones take the page's width
MAX_WIDTH = 16.0
TOKEN_POINTS = 8  # font size
_GATE_COLORS = (canvas.VERMILLION, canvas.PURPLE, canvas.GREEN)


@canvas.style()
def draw_utterance(trace: Trace, feats: np.ndarray, name: str, why: str, command: str) -> Drawing:
    """Draw one utterance.

    Args:
        trace: What happened in it.
        feats: Its features (T, F), before normalisation.
        name: File name without suffix.
        why: Why this utterance is shown.
        command: What makes the report.
    """
    width = float(np.clip(INCHES_PER_SECOND * trace.seconds, canvas.WIDTH, MAX_WIDTH))
    figure = canvas.new_figure(8.2, width)
    axes = figure.subplots(4, 1, sharex=True, height_ratios=[2.4, 1.8, 1.5, 1.1])
    _features(axes[0], trace, feats)
    _probabilities(axes[1], trace)
    _tokens(axes[2], trace, width)
    _depth(axes[3], trace)
    axes[0].set_xlim(0.0, trace.seconds)
    axes[-1].set_xlabel("time (s)")
    figure.align_ylabels(axes)
    about = caption("utterance", why=why, trace=trace)
    return canvas.finish(figure, name, f"Utterance {trace.utt_id}", about, command)


def _features(ax: Any, trace: Trace, feats: np.ndarray) -> None:
    top = feats.shape[1]
    low, high = np.percentile(feats, [2.0, 99.5])
    extent = (0.0, len(feats) * trace.hop_seconds, 0.0, top)
    look = {"origin": "lower", "aspect": "auto", "cmap": "cividis", "interpolation": "nearest"}
    ax.imshow(feats.T, extent=extent, vmin=low, vmax=high, **look)
    for start, end in _spans(trace, ~trace.keep_mask):
        ax.axvspan(start, end, ymax=0.92, color="white", alpha=0.55, lw=0)
    ax.set_ylim(0.0, top / 0.92)
    bars = [(start, end - start) for start, end in _spans(trace, trace.keep_mask)]
    ax.broken_barh(bars, (1.03 * top, 0.05 * top), color=canvas.BLUE, lw=0)
    ax.grid(visible=False)
    ax.set_yticks([0, top // 2, top])
    ax.set_ylabel("mel channel")
    ax.set_title("log-mel features; blue bar: frames that run every layer")


def _probabilities(ax: Any, trace: Trace) -> None:
    times = _centres(trace)
    for gate, color in zip(trace.gates, _GATE_COLORS, strict=False):
        prob = np.where(gate.seen, gate.blank_prob, np.nan)
        ax.plot(times, prob, color=color, label=f"gate after layer {gate.layer_idx}")
    ax.plot(times, trace.final_blank_prob, color=canvas.BLUE, ls="--", lw=1.2, label="final layer")
    for number, threshold in enumerate(sorted({gate.threshold for gate in trace.gates})):
        label = None if number else "threshold"
        ax.axhline(threshold, color=canvas.MUTED, ls=":", lw=1.2, label=label)
    ax.set_ylim(-0.05, 1.05)
    ax.set_ylabel("p(blank)")
    place = {"loc": "lower left", "bbox_to_anchor": (0.0, 1.0), "borderaxespad": 0.2}
    ax.legend(ncols=3, handlelength=1.6, columnspacing=1.2, **place)


def _tokens(ax: Any, trace: Trace, width: float) -> None:
    times = _centres(trace)
    heights = [prob for _, _, prob in trace.spikes]
    at = [float(times[frame]) for frame, _, _ in trace.spikes]
    if at:
        ax.vlines(at, 0.0, heights, color=canvas.INK, lw=1.2)
    labels = [token.replace("<space>", "\u2423").strip("\u2581") for _, token, _ in trace.spikes]
    em = TOKEN_POINTS / 72.0 * trace.seconds / (width - 0.9)  # seconds that one letter takes
    levels = stagger(at, [em * (0.65 * len(label) + 0.2) for label in labels])
    for time, label, level in zip(at, labels, levels, strict=True):
        ax.text(time, 1.07 + 0.21 * level, label, ha="center", va="bottom", fontsize=TOKEN_POINTS)
    top = 1.32 + 0.21 * max(levels, default=0)
    ax.set_ylim(0.0, top)
    ax.set_yticks([0.0, 0.5, 1.0])
    ax.set_ylabel("p(token)")
    ax.set_title("tokens found with skipping on (\u2423 = space)")


def _depth(ax: Any, trace: Trace) -> None:
    edges = np.append(np.arange(trace.num_frames) * trace.frame_seconds, trace.seconds)
    ax.stairs(trace.depth, edges, fill=True, color=canvas.SKY, ec=canvas.BLUE, lw=0.8)
    ax.set_ylim(0, trace.num_layers * 1.08)
    ax.set_yticks([0, *(gate.layer_idx for gate in trace.gates), trace.num_layers])
    ax.set_ylabel("layers run")


def stagger(at: Sequence[float], widths: Sequence[float]) -> list[int]:
    """Return a level for each label so that labels of one level do not overlap.

    Args:
        at: Centres of the labels, rising.
        widths: Their widths in the same unit.

    Example:
        >>> stagger([0.0, 0.5, 2.0], [1.0, 1.0, 1.0])
        [0, 1, 0]
    """
    ends: list[float] = []
    levels = []
    for centre, width in zip(at, widths, strict=True):
        start = centre - width / 2
        level = next((i for i, end in enumerate(ends) if end <= start), len(ends))
        ends[level : level + 1] = [centre + width / 2]
        levels.append(level)
    return levels


def _centres(trace: Trace) -> np.ndarray:
    return (np.arange(trace.num_frames) + 0.5) * trace.frame_seconds


def _spans(trace: Trace, mask: np.ndarray) -> list[tuple[float, float]]:
    """Return where every run of True begins and ends, in seconds; the last frame fills up."""
    edges = np.flatnonzero(np.diff(np.concatenate(([0], mask.astype(np.int8), [0]))))
    seconds = np.where(edges == trace.num_frames, trace.seconds, edges * trace.frame_seconds)
    return [(float(s), float(e)) for s, e in zip(seconds[::2], seconds[1::2], strict=True)]
