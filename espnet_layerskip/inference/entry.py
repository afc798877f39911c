"""The entries of ESPnet's n-best list, with times."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import torch

from espnet_layerskip._compat import inference_module
from espnet_layerskip.decoding.hypothesis import Hypothesis, Word
from espnet_layerskip.inference.times import word_times

BeamHypothesis: Any = inference_module().Hypothesis


class NBestHypothesis(BeamHypothesis):  # type: ignore[misc]
    """A hypothesis of ESPnet's beam search, with the frames, times and words of ours.

    What reads ESPnet's n-best lists finds ``yseq`` (token ids from sos to eos, int64), ``score``
    and ``scores`` (by scorer; empty where the decoder has only the sum), and ``asdict()``. The
    other attributes are those of :class:`~.decoding.hypothesis.Hypothesis`.
    """

    token_int: list[int]
    token_frames: list[int]
    token_ends: list[int]
    token_probs: list[float]
    token: list[str]
    text: str
    token_times: list[float]
    words: list[Word]

    @classmethod
    def of(cls, hyp: Hypothesis, sos: int, eos: int) -> NBestHypothesis:
        """Return a hypothesis of ours as ESPnet's.

        Args:
            hyp: Ours.
            sos: Token id before the first token, where ``hyp`` has no ``yseq``.
            eos: That after the last.
        """
        yseq = hyp.yseq or [sos, *hyp.token_int, eos]
        found: Any = cls(yseq=torch.tensor(yseq), score=hyp.score, scores=dict(hyp.scores))
        names = {f.name for f in fields(hyp)}.difference(BeamHypothesis._fields)
        vars(found).update({name: getattr(hyp, name) for name in names})
        return found  # type: ignore[no-any-return]

    def _replace(self, **changes: Any) -> Any:
        """Return a copy with other fields of ESPnet's; ours are kept."""
        found = super()._replace(**changes)
        found.__dict__.update(vars(self))
        return found

    def __eq__(self, other: object) -> bool:
        """Return whether tokens, scores and times are the same; probabilities are not compared."""
        if not isinstance(other, NBestHypothesis):
            return False
        same = (self.score, self.scores) == (other.score, other.scores)
        mine, theirs = ({**vars(one), "token_probs": None} for one in (self, other))
        return same and mine == theirs and torch.equal(self.yseq, other.yseq)

    def __ne__(self, other: object) -> bool:
        """Return whether they differ; a tuple has one of its own."""
        return not self == other

    __hash__ = None  # type: ignore[assignment]  # as a list


Entry = tuple[str | None, list[str], list[int], NBestHypothesis]


def make_entry(
    hyp: Hypothesis,
    converter: Any,
    tokenizer: Any,
    frame_seconds: float | None,
    token_type: str | None,
    ends: tuple[int, int],
    temperature: float = 1.0,
) -> Entry:
    """Return (text, token, token_int, hypothesis), the hypothesis with its strings and times.

    Args:
        hyp: Token ids and frames.
        converter: ESPnet's, from ids to tokens.
        tokenizer: ESPnet's, from tokens to text; None: no text.
        frame_seconds: Of an encoder frame; None: no times.
        token_type: Of the training; see :func:`~.times.word_times`.
        ends: Token ids of sos and eos.
        temperature: Of the words' confidences.
    """
    token = converter.ids2tokens(hyp.token_int)
    text = None if tokenizer is None else tokenizer.tokens2text(token)
    starts, stops = (
        [] if frame_seconds is None else [frame * frame_seconds for frame in frames]
        for frames in (hyp.token_frames, hyp.token_ends)
    )
    words = word_times(token, starts, stops, token_type, hyp.token_probs, temperature)
    hyp = replace(hyp, token=token, text=text or "", token_times=starts, words=words)
    return text, token, hyp.token_int, NBestHypothesis.of(hyp, *ends)
