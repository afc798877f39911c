"""Greedy (best-path) CTC decoding: argmax per frame, merge repeats, drop blanks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from espnet_layerskip.decoding.frame_drop import check_finite
from espnet_layerskip.decoding.hypothesis import Hypothesis, to_numpy
from espnet_layerskip.method.settings import BLANK

if TYPE_CHECKING:
    from espnet_layerskip.decoding.hypothesis import Frames


def collapse(ids: Frames, lens: Frames) -> list[tuple[list[int], list[int]]]:
    """Merge repeats and drop blanks.

    Two equal labels stay two tokens if at least one blank stands between them, so the
    path must be of full length: never drop blank frames before calling this.

    Args:
        ids: One label per frame (B, T), int64, blank is 0.
        lens: Number of real frames (B,), int64; what lies beyond is ignored.

    Returns:
        For each utterance (token ids, frame at which each token starts).

    Raises:
        ValueError: If the shapes do not fit.

    Example:
        >>> collapse(np.array([[0, 3, 3, 0, 3, 5, 5]]), np.array([6]))
        [([3, 3, 5], [1, 4, 5])]
    """
    if ids.ndim != 2 or lens.shape != ids.shape[:1]:
        raise ValueError(
            f"ids must be (B, T) and lens (B,), but got {tuple(ids.shape)} and {tuple(lens.shape)}"
        )
    labels = to_numpy(ids)
    starts = labels != BLANK
    starts[:, 1:] &= labels[:, 1:] != labels[:, :-1]
    starts &= np.arange(labels.shape[1]) < to_numpy(lens)[:, None]
    out = []
    for row, start in zip(labels, starts, strict=True):
        frames = start.nonzero()[0]
        out.append((row[frames].tolist(), frames.tolist()))
    return out


class GreedyDecoder:
    """Best-path decoding of full-length CTC posteriors.

    The score is the log-probability of the best path (not of the label sequence, which
    sums over paths). A frame whose posteriors are all zero is blank; NaN is refused. Nothing is
    dropped: it would change neither the path nor its score (:func:`~.frame_drop.drop_frames`).

    Example:
        >>> log_probs = np.log([[[0.1, 0.9], [0.1, 0.9], [0.8, 0.2], [0.3, 0.7]]])
        >>> [[best]] = GreedyDecoder()(log_probs, np.array([4]))
        >>> best.token_int, best.token_frames, best.token_ends
        ([1, 1], [0, 3], [2, 4])
    """

    def __call__(
        self, log_probs: Frames, lens: Frames, keep_mask: Frames | None = None
    ) -> list[list[Hypothesis]]:
        """Decode a batch; see :class:`~.hypothesis.CTCDecoder`."""
        if log_probs.ndim != 3:
            raise ValueError(f"log_probs must be (B, T, V), but got {tuple(log_probs.shape)}")
        valid = np.arange(log_probs.shape[1]) < to_numpy(lens)[:, None]
        best, ids = best_labels(log_probs, valid)
        scores = np.where(valid, best, 0.0).sum(-1).tolist()
        return _hypotheses(ids, lens, scores)

    def stream(self) -> GreedyStream:
        """Start on an utterance that comes in parts; see :class:`~.hypothesis.CTCDecoder`."""
        return GreedyStream()


class GreedyStream:
    """The best path of one utterance in parts; keeps a label a frame."""

    def __init__(self) -> None:
        self._path = [np.zeros(0, np.int64)]
        self._score = 0.0

    def accept(self, log_probs: Frames, keep_mask: Frames | None = None) -> None:
        """Take the next frames; see :class:`~.hypothesis.DecoderStream`."""
        best, ids = best_labels(log_probs)
        self._path.append(ids)
        self._score += float(best.sum())

    def finish(self) -> list[Hypothesis]:
        """Return the one hypothesis."""
        ids = np.concatenate(self._path)[None]
        return _hypotheses(ids, np.array([ids.shape[1]]), [self._score])[0]


def best_labels(log_probs: Any, valid: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return the best label of each frame: its log-probability float64, and the label int64.

    Args:
        log_probs: (..., T, V); those of a tensor are found on its device.
        valid: (..., T) bool, False = padding, whatever it holds; None = all frames are real.

    Raises:
        ValueError: For a frame with NaN or +inf.
    """
    if isinstance(log_probs, np.ndarray):
        ids = log_probs.argmax(-1)  # NaN is the largest
        best = np.take_along_axis(log_probs, ids[..., None], -1)[..., 0]
    else:
        top, at = log_probs.max(dim=-1)
        best, ids = to_numpy(top), to_numpy(at)
    best = best.astype(np.float64)
    if valid is not None:
        best = np.where(valid, best, -np.inf)
    check_finite(best)
    nothing = best == -np.inf
    return np.where(nothing, 0.0, best), np.where(nothing, BLANK, ids)


def _hypotheses(ids: Frames, lens: Frames, scores: Sequence[float]) -> list[list[Hypothesis]]:
    """Return one hypothesis an utterance of its path: labels (B, T), lengths (B,)."""
    paths = [row[:n] for row, n in zip(ids.tolist(), lens.tolist(), strict=True)]
    return [
        [Hypothesis(tokens, frames, token_ends(path, frames), score)]
        for (tokens, frames), path, score in zip(collapse(ids, lens), paths, scores, strict=True)
    ]


def token_ends(path: Sequence[int], starts: Sequence[int]) -> list[int]:
    """Return the frame after the last one of each token of a path.

    Args:
        path: One label per frame, 0 = blank.
        starts: Frame at which each token starts.
    """
    ends = []
    for frame in starts:
        end = frame + 1
        while end < len(path) and path[end] == path[frame]:
            end += 1
        ends.append(end)
    return ends
