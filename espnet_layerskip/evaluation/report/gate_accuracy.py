"""How good the gate's blank decision is, by the final layer's decision at full depth.

Counts are kept for each utterance, because frames of one utterance are not independent:
intervals come from a bootstrap over utterances.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from espnet_layerskip.evaluation.report.traces import Trace
from espnet_layerskip.evaluation.scoring import Interval, paired_bootstrap

NUM_BINS = 10


class Bin(NamedTuple):
    """Frames whose p(blank) at the gate lies in one of `NUM_BINS` ranges of equal width.

    Attributes:
        num_frames: How many they are.
        mean_prob: Their mean p(blank) at the gate.
        blank: Percentage that is blank at the final layer; None without frames.
    """

    num_frames: int
    mean_prob: float
    blank: Interval | None


def precision_and_recall(
    traces: Sequence[Trace], gate: int, threshold: float
) -> tuple[Interval | None, Interval | None]:
    """Return both in percent for gate number ``gate`` (from 0); a frame is blank above threshold.

    Precision: share of the frames called blank that are blank at the final layer. Recall: share
    of the blank frames of the final layer that are called blank. None where no frame qualifies.
    """
    frames = [(prob > threshold, final) for prob, final in _frames(traces, gate)]
    both = [int((called & final).sum()) for called, final in frames]
    return (
        _share(both, [int(called.sum()) for called, _ in frames]),
        _share(both, [int(final.sum()) for _, final in frames]),
    )


def reliability(traces: Sequence[Trace], gate: int) -> list[Bin]:
    """Return the frames of gate number ``gate`` in bins, from p(blank) = 0 up."""
    frames = _frames(traces, gate)
    bins = []
    for i in range(NUM_BINS):
        inside = [np.minimum((p * NUM_BINS).astype(int), NUM_BINS - 1) == i for p, _ in frames]
        probs = np.concatenate([p[use] for (p, _), use in zip(frames, inside, strict=True)])
        hits = [int(final[use].sum()) for (_, final), use in zip(frames, inside, strict=True)]
        mean_prob = float(probs.mean()) if len(probs) else (i + 0.5) / NUM_BINS
        blank = _share(hits, [int(use.sum()) for use in inside])
        bins.append(Bin(len(probs), mean_prob, blank))
    return bins


def calibration_error(bins: Sequence[Bin]) -> float:
    """Return the expected calibration error in percent points: |blank - p| over the frames."""
    n = sum(b.num_frames for b in bins)
    off = sum(b.num_frames * abs(b.blank.difference - 100 * b.mean_prob) for b in bins if b.blank)
    return off / max(1, n)


def _frames(traces: Sequence[Trace], gate: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return (p(blank), final decision is blank) of the frames that reach a gate, NaN left out."""
    out = []
    for trace in traces:
        decision = trace.gates[gate]
        use = decision.seen & ~np.isnan(decision.blank_prob)
        out.append((decision.blank_prob[use], trace.final_is_blank[use]))
    return out


def _share(hits: Sequence[int], counts: Sequence[int]) -> Interval | None:
    """Return 100 * hits / counts over all utterances, with its interval."""
    if not sum(counts):
        return None
    return paired_bootstrap(hits, [0] * len(hits), counts, num_samples=2000)
