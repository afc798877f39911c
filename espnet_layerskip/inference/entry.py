"""What came of an utterance: ESPnet's n-best list, with times, and what was skipped."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from espnet_layerskip.decoding.hypothesis import Hypothesis
from espnet_layerskip.inference.skip_count import SkipCount
from espnet_layerskip.inference.times import word_times

Entry = tuple[str | None, list[str], list[int], Hypothesis]


@dataclass(frozen=True)
class Recognized:
    """What came of one utterance.

    Attributes:
        nbest: N-best list of (text, token, token_int, hypothesis).
        intermediate: Tokens of intermediate CTC layers by layer, where the search gives any.
        skips: Its encoder frames, and what was skipped of them.
        encoder_seconds: Time in the encoder; of a batch an equal share.
    """

    nbest: list[Entry]
    intermediate: dict[int, list[str]] | None = None
    skips: SkipCount = field(default_factory=SkipCount)
    encoder_seconds: float = 0.0

    def for_espnet(self) -> Any:
        """Return what ESPnet's class returns: ``nbest`` or ``(nbest, intermediate)``."""
        return self.nbest if self.intermediate is None else (self.nbest, self.intermediate)


def make_entry(
    hyp: Hypothesis,
    converter: Any,
    tokenizer: Any,
    frame_seconds: float | None,
    token_type: str | None,
) -> Entry:
    """Return (text, token, token_int, hypothesis), the hypothesis with its strings and times.

    Args:
        hyp: Token ids and frames.
        converter: ESPnet's, from ids to tokens.
        tokenizer: ESPnet's, from tokens to text; None: no text.
        frame_seconds: Of an encoder frame; None: no times.
        token_type: Of the training; see :func:`~.times.word_times`.
    """
    token = converter.ids2tokens(hyp.token_int)
    text = None if tokenizer is None else tokenizer.tokens2text(token)
    starts, ends = (
        [] if frame_seconds is None else [frame * frame_seconds for frame in frames]
        for frames in (hyp.token_frames, hyp.token_ends)
    )
    words = word_times(token, starts, ends, token_type)
    hyp = replace(hyp, token=token, text=text or "", token_times=starts, words=words)
    return text, token, hyp.token_int, hyp
