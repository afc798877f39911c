"""One utterance from sound to tokens: what the gate saw, kept and what came out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from espnet_layerskip.evaluation.report import canvas
from espnet_layerskip.evaluation.report.canvas import Drawing
from espnet_layerskip.evaluation.report.templates import caption
from espnet_layerskip.evaluation.report.traces import Spike, Trace, Variant

INCHES_PER_SECOND = 1.1  # of long utterances; short ones take the page's width
MAX_WIDTH = 16.0
TOKEN_POINTS = 8  # font size
VEIL_TOP = 0.92  # of the axes with the features: above lies the bar
LEVEL = 0.21  # from one row of token names to the next, where 1 is a probability of 1
LIVE = "live-"  # ids of what the page's script draws anew for another setting begin so
_GATE_COLORS = (canvas.VERMILLION, canvas.PURPLE, canvas.GREEN)


@canvas.style()
def draw_utterance(
    trace: Trace,
    feats: np.ndarray,
    name: str,
    why: str,
    command: str,
    variants: Sequence[Variant] = (),
) -> Drawing:
    """Draw one utterance.

    Args:
        trace: What happened in it.
        feats: Its features (T, F), before normalisation.
        name: File name without suffix.
        why: Why this utterance is shown.
        command: What makes the report.
        variants: What other settings make of it: the page's script shows them in this figure, and
            there is room for their tokens.
    """
    width = float(np.clip(INCHES_PER_SECOND * trace.seconds, canvas.WIDTH, MAX_WIDTH))
    figure = canvas.new_figure(9.0, width)
    axes = figure.subplots(4, 1, sharex=True, height_ratios=[2.3, 1.7, 2.4, 1.0])
    _features(axes[0], trace, feats)
    _probabilities(axes[1], trace)
    _tokens(axes[2], trace, [v.spikes for v in variants])
    _depth(axes[3], trace)
    axes[0].set_xlim(0.0, trace.seconds)
    axes[-1].set_xlabel("time (s)")
    figure.align_ylabels(axes)
    about = caption("utterance", why=why, trace=trace)
    title = f"Utterance {trace.utt_id}"
    panels = dict(zip(("features", "blank", "tokens", "depth"), axes, strict=True))
    return canvas.finish(figure, name, title, about, command, panels=panels)


def _features(ax: Any, trace: Trace, feats: np.ndarray) -> None:
    top = feats.shape[1]
    low, high = np.percentile(feats, [2.0, 99.5])
    extent = (0.0, len(feats) * trace.hop_seconds, 0.0, top)
    look = {"origin": "lower", "aspect": "auto", "cmap": "cividis", "interpolation": "nearest"}
    ax.imshow(feats.T, extent=extent, vmin=low, vmax=high, **look)
    for start, end in _spans(trace, ~trace.keep_mask):
        veil = ax.axvspan(start, end, ymax=VEIL_TOP, color=canvas.VEIL, alpha=0.6, lw=0)
        veil.set_gid(f"{LIVE}veil{start:.3f}")
    ax.set_ylim(0.0, top / VEIL_TOP)
    bars = [(start, end - start) for start, end in _spans(trace, trace.keep_mask)]
    bar = ax.broken_barh(bars, (1.03 * top, 0.05 * top), color=canvas.BLUE, lw=0)
    bar.set_gid(f"{LIVE}bar")
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


def _tokens(ax: Any, trace: Trace, others: Sequence[Sequence[Spike]]) -> None:
    """Draw the tokens: upwards with skipping on, downwards with skipping off."""
    rows = [levels_of(trace, spikes) for spikes in (trace.spikes, trace.spikes_off)]
    room = [level for spikes in others for level in levels_of(trace, spikes)]
    for sign, spikes, levels in zip((1, -1), (trace.spikes, trace.spikes_off), rows, strict=True):
        live = LIVE if sign > 0 else ""
        at = [_centre(trace, frame) for frame, _, _ in spikes]
        color = canvas.BLUE if sign > 0 else canvas.VERMILLION
        if at:
            heights = [sign * prob for _, _, prob in spikes]
            ax.vlines(at, 0.0, heights, color=color, lw=1.2, gid=f"{live}stems{sign}")
        for i, (time, (_, token, _), level) in enumerate(zip(at, spikes, levels, strict=True)):
            text = ax.text(
                *(time, sign * (1.07 + LEVEL * level), shown(token)),
                ha="center", va="bottom" if sign > 0 else "top", fontsize=TOKEN_POINTS,
            )  # fmt: skip
            text.set_gid(f"{live}token{sign}-{i}")
    ax.axhline(0.0, color=canvas.MUTED, lw=0.8)
    tops = [1.32 + LEVEL * max([0, *levels]) for levels in rows]
    ax.set_ylim(-tops[1], max(tops[0], 1.32 + LEVEL * max(room, default=0)))
    ax.set_yticks([-1.0, 0.0, 1.0], ["1", "0", "1"])
    ax.set_ylabel("p(token)")
    ax.set_title("tokens: skipping on upwards, off downwards (\u2423 = space)")


def levels_of(trace: Trace, spikes: Sequence[Spike]) -> list[int]:
    """Return the row of each token's name, so that names do not overlap."""
    width = float(np.clip(INCHES_PER_SECOND * trace.seconds, canvas.WIDTH, MAX_WIDTH))
    em = TOKEN_POINTS / 72.0 * trace.seconds / (width - 0.9)  # seconds that one letter takes
    at = [_centre(trace, frame) for frame, _, _ in spikes]
    return stagger(at, [em * (0.65 * len(shown(token)) + 0.2) for _, token, _ in spikes])


def shown(token: str) -> str:
    """Return a token as the figure writes it."""
    return token.replace("<space>", "\u2423").strip("\u2581")


def _depth(ax: Any, trace: Trace) -> None:
    edges = np.append(np.arange(trace.num_frames) * trace.frame_seconds, trace.seconds)
    look = {"fill": True, "color": canvas.SKY, "ec": canvas.BLUE, "lw": 0.8}
    ax.stairs(trace.depth, edges, gid=f"{LIVE}depth", **look)
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


def _centre(trace: Trace, frame: int) -> float:
    return (frame + 0.5) * trace.frame_seconds


def _centres(trace: Trace) -> np.ndarray:
    return (np.arange(trace.num_frames) + 0.5) * trace.frame_seconds


def _spans(trace: Trace, mask: np.ndarray) -> list[tuple[float, float]]:
    """Return where every run of True begins and ends, in seconds; the last frame fills up."""
    edges = np.flatnonzero(np.diff(np.concatenate(([0], mask.astype(np.int8), [0]))))
    seconds = np.where(edges == trace.num_frames, trace.seconds, edges * trace.frame_seconds)
    return [(float(s), float(e)) for s, e in zip(seconds[::2], seconds[1::2], strict=True)]
