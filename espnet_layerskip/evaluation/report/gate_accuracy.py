"""How good the gate's blank decision is, by the final layer's decision at full depth.

Counts are kept for each utterance, because frames of one utterance are not independent:
intervals come from a bootstrap over utterances.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from espnet_layerskip.evaluation.report.traces import Trace
from espnet_layerskip.evaluation.scoring import Interval, paired_bootstrap

THRESHOLDS = (0.1, 0.2, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.97, 0.99, 0.995, 0.999)
NUM_BINS = 10


@dataclass(frozen=True)
class Accuracy:
    """A gate at one threshold, in percent; None where no frame qualifies.

    Attributes:
        threshold: A frame is called blank where p(blank) is above it.
        precision: Share of the frames called blank that are blank at the final layer.
        recall: Share of the blank frames of the final layer that are called blank.
    """

    threshold: float
    precision: Interval | None
    recall: Interval | None


@dataclass(frozen=True)
class Bin:
    """Frames whose gate probability lies between two limits.

    Attributes:
        low: Lower limit of p(blank).
        high: Upper limit.
        count: Frames.
        mean_prob: Their mean p(blank) at the gate.
        blank: Percentage that is blank at the final layer; None without frames.
    """

    low: float
    high: float
    count: int
    mean_prob: float
    blank: Interval | None


def gate_accuracy(traces: Sequence[Trace], gate: int, threshold: float) -> Accuracy:
    """Return precision and recall of gate number ``gate`` (from 0) at a threshold."""
    called, blank, both = [], [], []
    for prob, final in _frames(traces, gate):
        above = prob > threshold
        called.append(int(above.sum()))
        blank.append(int(final.sum()))
        both.append(int((above & final).sum()))
    return Accuracy(threshold, _share(both, called), _share(both, blank))


def reliability(traces: Sequence[Trace], gate: int) -> list[Bin]:
    """Return the frames of gate number ``gate`` in bins of equal width."""
    frames = _frames(traces, gate)
    bins = []
    for i in range(NUM_BINS):
        counts, hits, total = [], [], 0.0
        for prob, final in frames:
            inside = np.minimum((prob * NUM_BINS).astype(int), NUM_BINS - 1) == i
            counts.append(int(inside.sum()))
            hits.append(int(final[inside].sum()))
            total += float(prob[inside].sum())
        n = sum(counts)
        low, high = i / NUM_BINS, (i + 1) / NUM_BINS
        bins.append(Bin(low, high, n, total / n if n else (low + high) / 2, _share(hits, counts)))
    return bins


def calibration_error(bins: Sequence[Bin]) -> float:
    """Return the expected calibration error in percent points: |blank - p| over the frames."""
    n = sum(b.count for b in bins)
    off = sum(b.count * abs(b.blank.difference - 100 * b.mean_prob) for b in bins if b.blank)
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
