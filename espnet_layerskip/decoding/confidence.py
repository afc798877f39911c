"""How sure a CTC head was of each token of a transcript: p(token) where the token stands."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from espnet_layerskip.decoding.hypothesis import CTCDecoder, DecoderStream, Hypothesis, to_numpy

if TYPE_CHECKING:
    from espnet_layerskip.decoding.hypothesis import Frames

KEPT = 4
"""Best labels of a frame that are kept of audio that comes in parts; others count as the last."""


class WithConfidence:
    """A CTC decoder whose hypotheses have ``token_probs``.

    The probability of a token is the largest p(token) of the frames at which it stands on the
    path of the hypothesis. Its decisions are those of the decoder within.

    Args:
        decoder: The search.
    """

    def __init__(self, decoder: CTCDecoder):
        self.decoder = decoder

    def __getattr__(self, name: str) -> Any:
        if name == "decoder":  # not made yet, in a copy
            raise AttributeError(name)
        return getattr(self.decoder, name)

    def __call__(
        self, log_probs: Frames, lens: Frames, keep_mask: Frames | None = None
    ) -> list[list[Hypothesis]]:
        """Decode a batch; see :class:`~.hypothesis.CTCDecoder`."""
        found = self.decoder(log_probs, lens, keep_mask)
        return [
            [with_probs(hyp, row) for hyp in hyps]
            for hyps, row in zip(found, log_probs, strict=True)
        ]

    def stream(self) -> ConfidentStream:
        """Start on an utterance that comes in parts; see :class:`~.hypothesis.CTCDecoder`."""
        return ConfidentStream(self.decoder.stream())


class ConfidentStream:
    """A search over an utterance in parts, which keeps the best labels of each frame."""

    def __init__(self, stream: DecoderStream):
        self._stream = stream
        self._labels: list[np.ndarray] = []
        self._values: list[np.ndarray] = []

    def accept(self, log_probs: Frames, keep_mask: Frames | None = None) -> None:
        """Take the next frames; see :class:`~.hypothesis.DecoderStream`."""
        self._stream.accept(log_probs, keep_mask)
        labels, values = best_of(log_probs, min(KEPT, log_probs.shape[-1]))
        # 16 bytes a frame: an hour of audio is some megabytes
        self._labels.append(labels.astype(np.min_scalar_type(log_probs.shape[-1])))
        self._values.append(values.astype(np.float16))

    def finish(self) -> list[Hypothesis]:
        """Return the hypotheses, best first."""
        hyps = self._stream.finish()
        if not self._labels:
            return hyps
        labels, values = np.concatenate(self._labels), np.concatenate(self._values)

        def scores(frames: np.ndarray, tokens: np.ndarray) -> np.ndarray:
            same = labels[frames] == tokens[:, None]
            found = np.where(same, values[frames], -np.inf).max(1)
            out: np.ndarray = np.where(same.any(1), found, values[frames].min(1))
            return out

        return [_filled(hyp, scores) for hyp in hyps]


def best_of(log_probs: Any, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the best labels of each frame and their log-probabilities, (T, count) each."""
    if isinstance(log_probs, np.ndarray):
        labels = np.argpartition(-log_probs, count - 1, axis=-1)[..., :count]
        return labels, np.take_along_axis(log_probs, labels, -1)
    values, places = log_probs.topk(count, dim=-1)
    return to_numpy(places), to_numpy(values.float())


def with_probs(hyp: Hypothesis, log_probs: Any) -> Hypothesis:
    """Return a hypothesis with its ``token_probs``; as it is where it has no frames.

    Args:
        hyp: With token ids and frames.
        log_probs: Log-posteriors (T, V) of the utterance, a tensor or an array.

    Example:
        >>> p = np.array([[0.1, 0.9], [0.4, 0.6], [0.8, 0.2], [0.3, 0.7]])
        >>> with_probs(Hypothesis([1, 1], [0, 3], [2, 4]), np.log(p)).token_probs
        [0.9, 0.7]
    """

    def scores(frames: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        return to_numpy(log_probs[frames, tokens])

    return _filled(hyp, scores)


def _filled(hyp: Hypothesis, scores: Any) -> Hypothesis:
    starts, ends = np.array(hyp.token_frames, np.int64), np.array(hyp.token_ends, np.int64)
    if not len(starts) or len(starts) != len(hyp.token_int):
        return hyp
    lengths = np.maximum(ends - starts, 1)
    first = np.cumsum(lengths) - lengths  # place of each token's first frame among all of them
    frames = np.repeat(starts - first, lengths) + np.arange(lengths.sum())
    values = scores(frames, np.repeat(np.array(hyp.token_int, np.int64), lengths))
    best = np.exp(np.maximum.reduceat(values.astype(np.float64), first))
    return replace(hyp, token_probs=[round(float(p), 6) for p in np.minimum(best, 1.0)])


def word_confidence(token_probs: Sequence[float]) -> float:
    """Return how sure a word is: the product of the probabilities of its tokens."""
    return float(np.prod(token_probs))


def check_temperature(value: Any, name: str = "confidence_temperature") -> None:
    """Raise ValueError unless this is a temperature, or None for the default."""
    if value is not None and not (type(value) in (int, float) and 0.0 < value < math.inf):
        raise ValueError(f"{name} must be a number above 0, but got {value!r}")


NEAREST = 1e-6
"""To 0 and to 1 that a confidence is taken for: its logit has to be finite."""


def tempered(confidence: Any, temperature: float) -> Any:
    """Return sigmoid(logit(p) / temperature) of a confidence p, or of an array of them.

    >>> round(float(tempered(0.9, 2.0)), 3), tempered(0.9, 1.0)
    (0.75, 0.9)
    """
    if temperature == 1.0:
        return confidence
    sure = np.clip(confidence, NEAREST, 1 - NEAREST)
    return 1 / (1 + (1 / sure - 1) ** (1 / temperature))
