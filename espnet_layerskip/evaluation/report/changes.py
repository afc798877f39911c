"""What skipping changed: every utterance's text with skipping on and off."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import jiwer

from espnet_layerskip.evaluation.report.traces import Trace
from espnet_layerskip.evaluation.scoring import count_errors, words

BETTER, SAME, WORSE, UNCHANGED = "better", "as many errors", "worse", "unchanged"


@dataclass(frozen=True)
class Change:
    """An utterance with skipping off and on.

    Attributes:
        trace: The utterance.
        errors_off: Word errors with skipping off.
        errors_on: Word errors with skipping on.
    """

    trace: Trace
    errors_off: int
    errors_on: int

    @property
    def effect(self) -> str:
        """BETTER, SAME or WORSE, by word errors; UNCHANGED where the text is the same."""
        if words(self.trace.text_on) == words(self.trace.text_off):
            return UNCHANGED
        if self.errors_on == self.errors_off:
            return SAME
        return WORSE if self.errors_on > self.errors_off else BETTER


def compare_texts(traces: Sequence[Trace]) -> list[Change]:
    """Return all utterances: the most damaged first, then others that changed, then the rest."""
    found = []
    for trace in traces:
        ref = words(trace.ref)
        off, on = (count_errors(ref, words(t)).errors for t in (trace.text_off, trace.text_on))
        found.append(Change(trace, off, on))
    return sorted(
        found, key=lambda c: (c.effect == UNCHANGED, c.errors_off - c.errors_on, c.trace.utt_id)
    )


def marked_words(ref: str, hyp: str) -> list[tuple[str, bool]]:
    """Return the words of a transcript, each with whether it is wrong; "*" is a missing one.

    Example:
        >>> marked_words("A B C", "A X C D")
        [('A', False), ('X', True), ('C', False), ('D', True)]
        >>> marked_words("A B", "A")
        [('A', False), ('*', True)]
    """
    theirs, ours = words(ref), words(hyp)
    if not theirs or not ours:
        return [(word, True) for word in ours] or [("*", True)] * len(theirs)
    out: list[tuple[str, bool]] = []
    [chunks] = jiwer.process_words(" ".join(theirs), " ".join(ours)).alignments
    for chunk in chunks:
        out += [(w, chunk.type != "equal") for w in ours[chunk.hyp_start_idx : chunk.hyp_end_idx]]
        if chunk.type == "delete":
            out += [("*", True)] * (chunk.ref_end_idx - chunk.ref_start_idx)
    return out
