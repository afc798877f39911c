"""CTC prefix beam search: frame by frame, with an optional score for each prefix."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from espnet_layerskip.decoding.align import align
from espnet_layerskip.decoding.beam import Beam, PrefixScorer
from espnet_layerskip.decoding.frame_drop import (
    DROP_NOTHING,
    check_drop_threshold,
    clean_log_probs,
    drop_frames,
)
from espnet_layerskip.decoding.hypothesis import Hypothesis, to_numpy
from espnet_layerskip.method.settings import BLANK

if TYPE_CHECKING:
    from espnet_layerskip.decoding.hypothesis import Frames

# With a scorer a token may win that the posteriors alone rank low.
TOKENS_WITH_SCORER = 64
MOST_PREFIXES = 10_000  # of a beam: a wider one leaves nothing out, and grows with each frame


class PrefixBeamDecoder:
    """Prefix beam search (Hannun et al., arXiv:1408.2873, algorithm 1), in the log domain.

    The score of a token sequence y is log p(y | x), summed over its paths, plus what the
    scorer adds. Prefixes that meet again in the beam are one, so nothing competes with
    itself. Without a scorer only the ``beam_size + 1`` best tokens of a frame are tried: no
    other could enter the beam.

    Where a scorer forbids every sequence of the beam to end (a word is left unfinished at
    the end of the audio), those sequences are returned all the same.

    Args:
        beam_size: Number of prefixes kept after each frame, at most 10 000.
        nbest: Number of hypotheses to return.
        scorer: Language model, lexicon or both.
        drop_threshold: See :func:`~.frame_drop.drop_frames`; 1.0 = the search sees every frame.

    Raises:
        ValueError: For a number out of range.
    """

    def __init__(
        self,
        beam_size: int = 10,
        nbest: int = 1,
        scorer: PrefixScorer | None = None,
        drop_threshold: float | str = DROP_NOTHING,
    ):
        if beam_size < 1 or nbest < 1:
            raise ValueError(
                f"beam_size and nbest must be at least 1, but got {beam_size} and {nbest}"
            )
        if beam_size > MOST_PREFIXES:
            raise ValueError(
                f"beam_size must be at most {MOST_PREFIXES}, but got {beam_size}: 10 is usual"
            )
        self.beam_size = beam_size
        self.nbest = nbest
        self.scorer = scorer
        self.drop_threshold = check_drop_threshold(drop_threshold)

    def __call__(
        self, log_probs: Frames, lens: Frames, keep_mask: Frames | None = None
    ) -> list[list[Hypothesis]]:
        """Decode a batch; see :class:`~.hypothesis.CTCDecoder`."""
        if log_probs.ndim != 3:
            raise ValueError(f"log_probs must be (B, T, V), but got {tuple(log_probs.shape)}")
        out = []
        for i, n in enumerate(lens.tolist()):
            stream = self.stream()
            stream.accept(log_probs[i, :n], None if keep_mask is None else keep_mask[i, :n])
            out.append(stream.finish())
        return out

    def stream(self) -> PrefixStream:
        """Start on an utterance that comes in parts; see :class:`~.hypothesis.CTCDecoder`."""
        return PrefixStream(self)


class PrefixStream:
    """The prefix beam search over one utterance in parts.

    The beam goes on from part to part. When a part comes, what lies before the previous one
    is settled as the best hypothesis has it: its times are found, its posteriors let go, and
    prefixes that differ there leave the beam. (So much later nothing decides between them any
    more; they would only take places in the beam.) Up to two parts are searched as a whole.

    Args:
        decoder: Whose options are used.
    """

    def __init__(self, decoder: PrefixBeamDecoder):
        self._decoder = decoder
        self._beam: Beam | None = None
        self._rows: list[np.ndarray] = []  # not settled yet: what was before, and the last part
        self._bounds = [0]  # frame at which each of these rows starts, and the end of the last
        self._settled = Hypothesis()

    def accept(self, log_probs: Frames, keep_mask: Frames | None = None) -> None:
        """Take the next frames; see :class:`~.hypothesis.DecoderStream`."""
        if self._beam is None:
            self._beam = Beam(log_probs.shape[-1], self._decoder.scorer)
        if len(self._rows) > 1 and len(log_probs):
            self._settle(self._beam)
        cleaned = to_numpy(clean_log_probs(log_probs))
        rows, first = drop_frames(cleaned, self._decoder.drop_threshold, keep_mask)
        begin = self._bounds.pop()
        self._bounds += [*(first + begin).tolist(), begin + len(cleaned)]
        if len(rows) or not self._rows:
            self._rows.append(rows)
        self._search(self._beam, rows.astype(np.float64))

    def finish(self) -> list[Hypothesis]:
        """Return the n-best list."""
        if self._beam is None:
            return [Hypothesis()]
        return [self._whole(hyp) for hyp in self._beam.hypotheses()[: self._decoder.nbest]]

    def _search(self, beam: Beam, log_probs: np.ndarray) -> None:
        """Take rows (M, V) float64 into the beam."""
        beam_size = self._decoder.beam_size
        tokens = best_tokens(log_probs, beam_size, self._decoder.scorer is not None)
        label_free = log_probs[:, 1:].max(-1, initial=-np.inf) < math.log(np.finfo(float).tiny)
        for row, candidates, only_blank in zip(log_probs, tokens, label_free, strict=True):
            if only_blank:
                beam.add_blank(row[BLANK])
            else:
                beam.step(row, candidates, beam_size)

    def _whole(self, hyp: Hypothesis) -> Hypothesis:
        """Return a hypothesis of the beam with its frames and with what is settled."""
        settled = self._settled
        starts, ends = self._align(hyp.token_int)
        timed = len(starts) == len(hyp.token_int)
        return replace(
            hyp,
            token_int=settled.token_int + hyp.token_int,
            token_frames=settled.token_frames + self._frames(starts) if timed else [],
            token_ends=settled.token_ends + self._frames(ends) if timed else [],
        )

    def _settle(self, beam: Beam) -> None:
        """Settle the tokens that start before the last part; not one that may go on after it."""
        tokens = beam.hypotheses()[0].token_int
        starts, ends = self._align(tokens)
        if len(starts) < len(tokens):  # no path gives them: later, maybe
            return
        before = sum(len(rows) for rows in self._rows[:-1])
        stop = before + len(self._rows[-1])
        count = sum(a < before and b < stop for a, b in zip(starts, ends, strict=True))
        done = starts[count] if count < len(starts) else max([before, *ends])
        beam.settle(tokens[:count])
        self._settled.token_int.extend(tokens[:count])
        self._settled.token_frames.extend(self._frames(starts[:count]))
        self._settled.token_ends.extend(self._frames(ends[:count]))
        self._rows = [np.concatenate(self._rows)[done:].copy()]
        self._bounds = self._bounds[done:]

    def _align(self, tokens: list[int]) -> tuple[list[int], list[int]]:
        return align(np.concatenate(self._rows), tokens)

    def _frames(self, rows: list[int]) -> list[int]:
        return [self._bounds[row] for row in rows]


def best_tokens(log_probs: np.ndarray, beam_size: int, with_scorer: bool) -> np.ndarray:
    """Return the tokens to try at each frame (M, K), blank never among them."""
    num_labels = log_probs.shape[1] - 1
    k = max(beam_size + 1, TOKENS_WITH_SCORER if with_scorer else 0)
    if k >= num_labels:
        return np.broadcast_to(np.arange(1, num_labels + 1), (len(log_probs), num_labels))
    return np.argpartition(log_probs[:, 1:], num_labels - k, axis=1)[:, num_labels - k :] + 1
