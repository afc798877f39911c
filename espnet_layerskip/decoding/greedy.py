"""Greedy (best-path) CTC decoding: argmax per frame, merge repeats, drop blanks."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from espnet_layerskip.decoding.frame_drop import clean_log_probs
from espnet_layerskip.decoding.hypothesis import Hypothesis
from espnet_layerskip.method.ctc import BLANK


def collapse(ids: torch.Tensor, lens: torch.Tensor) -> list[tuple[list[int], list[int]]]:
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
        >>> collapse(torch.tensor([[0, 3, 3, 0, 3, 5, 5]]), torch.tensor([6]))
        [([3, 3, 5], [1, 4, 5])]
    """
    if ids.dim() != 2 or lens.shape != ids.shape[:1]:
        raise ValueError(
            f"ids must be (B, T) and lens (B,), but got {tuple(ids.shape)} and {tuple(lens.shape)}"
        )
    ids, lens = ids.cpu(), lens.cpu()
    starts = ids != BLANK
    starts[:, 1:] &= ids[:, 1:] != ids[:, :-1]
    starts &= torch.arange(ids.size(1)) < lens[:, None]
    out = []
    for row, start in zip(ids, starts, strict=True):
        frames = start.nonzero().squeeze(1)
        out.append((row[frames].tolist(), frames.tolist()))
    return out


class GreedyDecoder:
    """Best-path decoding of full-length CTC posteriors.

    The score is the log-probability of the best path (not of the label sequence, which
    sums over paths). A frame whose posteriors are all NaN is blank. Nothing is dropped:
    it would change neither the path nor its score (:func:`~.frame_drop.drop_frames`).

    Example:
        >>> log_probs = torch.tensor([[[0.1, 0.9], [0.1, 0.9], [0.8, 0.2], [0.3, 0.7]]]).log()
        >>> [[best]] = GreedyDecoder()(log_probs, torch.tensor([4]))
        >>> best.token_int, best.token_frames, best.token_ends
        ([1, 1], [0, 3], [2, 4])
    """

    def __call__(
        self, log_probs: torch.Tensor, lens: torch.Tensor, keep_mask: torch.Tensor | None = None
    ) -> list[list[Hypothesis]]:
        """Decode a batch; see :class:`~.hypothesis.CTCDecoder`."""
        if log_probs.dim() != 3:
            raise ValueError(f"log_probs must be (B, T, V), but got {tuple(log_probs.shape)}")
        best, ids = clean_log_probs(log_probs).max(dim=-1)
        valid = torch.arange(ids.size(1), device=ids.device) < lens.to(ids.device)[:, None]
        scores = best.double().masked_fill(~valid, 0.0).sum(-1).tolist()
        return _hypotheses(ids, lens, scores)

    def stream(self) -> GreedyStream:
        """Start on an utterance that comes in parts; see :class:`~.hypothesis.CTCDecoder`."""
        return GreedyStream()


class GreedyStream:
    """The best path of one utterance in parts; keeps a label a frame."""

    def __init__(self) -> None:
        self._path: list[torch.Tensor] = [torch.zeros(0, dtype=torch.long)]
        self._score = 0.0

    def accept(self, log_probs: torch.Tensor, keep_mask: torch.Tensor | None = None) -> None:
        """Take the next frames; see :class:`~.hypothesis.DecoderStream`."""
        best, ids = clean_log_probs(log_probs).max(dim=-1)
        self._path.append(ids.cpu())
        self._score += float(best.double().sum())

    def finish(self) -> list[Hypothesis]:
        """Return the one hypothesis."""
        ids = torch.cat(self._path)[None]
        return _hypotheses(ids, torch.tensor([ids.size(1)]), [self._score])[0]


def _hypotheses(
    ids: torch.Tensor, lens: torch.Tensor, scores: Sequence[float]
) -> list[list[Hypothesis]]:
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
