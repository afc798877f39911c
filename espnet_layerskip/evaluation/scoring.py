"""Errors of transcripts, their rates, and a paired bootstrap over utterances or speakers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

MAX_WER_POINTS = 0.3  # percent points; the project's own bound for "no loss"
ROUNDING = 1e-9
MANY_SPEAKERS = 20
"""From so many on an interval is over speakers: those of few say little about others."""

Split = Callable[[str], list[str]]


@dataclass(frozen=True)
class Counts:
    """Aligned tokens of one or more sentences: correct, substituted, deleted, inserted."""

    sentences: int = 0
    correct: int = 0
    sub: int = 0
    deletions: int = 0
    ins: int = 0
    wrong_sentences: int = 0

    @property
    def words(self) -> int:
        """Number of reference tokens."""
        return self.correct + self.sub + self.deletions

    @property
    def errors(self) -> int:
        """Substitutions, deletions and insertions."""
        return self.sub + self.deletions + self.ins

    def __add__(self, other: Counts) -> Counts:
        both = vars(self).values(), vars(other).values()
        return Counts(*(a + b for a, b in zip(*both, strict=True)))

    def percentages(self) -> list[float]:
        """Return Corr, Sub, Del, Ins, Err (of the reference tokens), S.Err (of the sentences)."""
        words = max(self.words, 1)
        counts = (self.correct, self.sub, self.deletions, self.ins, self.errors)
        wrong = 100.0 * self.wrong_sentences / max(self.sentences, 1)
        return [100.0 * c / words for c in counts] + [wrong]


def count_errors(ref: Sequence[str], hyp: Sequence[str]) -> Counts:
    """Align one sentence by jiwer (fewest errors) and count.

    The number of errors is sclite's; where several alignments have as many, sclite may split
    them otherwise into substitutions, deletions and insertions.

    Raises:
        ValueError: jiwer is not installed.

    >>> count_errors("a b c d".split(), "a x c".split())
    Counts(sentences=1, correct=2, sub=1, deletions=1, ins=0, wrong_sentences=1)
    """
    if not ref or not hyp:
        return Counts(1, 0, 0, len(ref), len(hyp), int(ref != hyp))
    try:
        import jiwer
    except ImportError as err:
        raise ValueError(
            "neither sclite nor jiwer is installed: pip install jiwer, or Debian's sctk"
        ) from err
    # jiwer takes text: every token becomes one word without anything that it could change.
    names: dict[str, str] = {}
    texts = [" ".join(names.setdefault(t, f"t{len(names)}") for t in side) for side in (ref, hyp)]
    out = jiwer.process_words(texts[0], texts[1])
    return Counts(1, out.hits, out.substitutions, out.deletions, out.insertions, int(ref != hyp))


def words(text: str) -> list[str]:
    """Split a transcript into words, as it is: no case folding, no normalisation."""
    return text.split()


def characters(text: str) -> list[str]:
    """Split a transcript into characters; a space between words is one, as ESPnet counts."""
    return list(" ".join(text.split()))


SPLITS: dict[str, Split] = {"wer": words, "cer": characters}
"""By metric."""


def score(refs: Mapping[str, str], hyps: Mapping[str, str], split: Split) -> dict[str, Counts]:
    """Return the errors of each utterance, in the order of the references.

    Args:
        refs: Transcripts by utterance, taken as they are.
        hyps: What was recognised, of at least the same utterances.
        split: From a transcript to tokens: ``words``, ``characters`` or a tokenizer's.
    """
    return {utt: _count(ref, hyps[utt], split) for utt, ref in refs.items()}


@lru_cache(maxsize=2**17)  # settings of one model mostly give the same transcripts
def _count(ref: str, hyp: str, split: Split) -> Counts:
    return count_errors(split(ref), split(hyp))


def error_rate(counts: Iterable[Counts]) -> float:
    """Return the errors in percent of the reference tokens.

    Raises:
        ValueError: If there are no reference tokens.
    """
    total = sum(counts, Counts())
    if total.words == 0:
        raise ValueError("the references have no tokens: an error rate needs at least one")
    return 100.0 * total.errors / total.words


def check_hypotheses(refs: Mapping[str, str], hyps: Mapping[str, str]) -> None:
    """Refuse transcripts that cannot back up a speed.

    Raises:
        ValueError: If an utterance has no hypothesis, or if all hypotheses are empty.
    """
    missing = sorted(set(refs) - set(hyps))
    if missing:
        raise ValueError(
            f"transcripts missing for {len(missing)} of {len(refs)} utterances, first {missing[0]}"
        )
    if not any(hyps[utt].strip() for utt in refs):
        raise ValueError(
            f"the model wrote nothing for any of {len(refs)} utterances: is it trained?"
        )


def judge(wer: float, reference: float | None, max_wer_points: float) -> str:
    """Return "ok", or why a row may not count as fast.

    Args:
        wer: Of the row, in percent.
        reference: Of the same weights at full depth, in percent; None = nothing to compare.
        max_wer_points: Allowed increase in percent points.
    """
    if reference is None or wer <= reference + max_wer_points + ROUNDING:
        return "ok"
    return f"failed: WER {wer - reference:+.2f} over full depth (allowed {max_wer_points:+.2f})"


@dataclass(frozen=True)
class Interval:
    """A difference of error rates in percent points with its 95 % confidence interval."""

    difference: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.difference:+.2f} [{self.low:+.2f}, {self.high:+.2f}]"


def paired_bootstrap(
    errors: Sequence[float],
    baseline_errors: Sequence[float],
    num_ref: Sequence[int],
    num_samples: int = 10000,
    speakers: Sequence[str] | None = None,
) -> Interval:
    """Return the difference of two error rates on the same utterances, with its interval.

    Utterances are drawn with replacement, the same ones for both systems; the interval is
    the 2.5 and 97.5 percentile of the drawn differences. It covers the choice of test
    utterances, not the choice of training seed: give errors averaged over the seeds. Of many
    speakers these are drawn, each with all utterances: Bisani and Ney, ICASSP 2004.

    Args:
        errors: Errors for each utterance.
        baseline_errors: Errors of the system it is compared with, same order.
        num_ref: Reference tokens for each utterance, same order.
        num_samples: Draws.
        speakers: Speaker of each utterance, same order; used if there are `MANY_SPEAKERS`.

    Raises:
        ValueError: For empty or differing lengths.
    """
    if not num_ref or not len(errors) == len(baseline_errors) == len(num_ref):
        raise ValueError(
            f"got {len(errors)}, {len(baseline_errors)} and {len(num_ref)} utterances; the same "
            "number, at least one, is needed"
        )
    diff = np.asarray(errors, dtype=np.float64) - np.asarray(baseline_errors, dtype=np.float64)
    lengths = np.asarray(num_ref, dtype=np.float64)
    if speakers is not None and len(set(speakers)) >= MANY_SPEAKERS:
        _, place = np.unique(np.asarray(speakers), return_inverse=True)
        diff, lengths = (np.bincount(place, each).astype(np.float64) for each in (diff, lengths))
    n = len(lengths)
    drawn = np.random.default_rng(0).multinomial(n, np.full(n, 1.0 / n), size=num_samples)
    samples = 100.0 * (drawn @ diff) / np.maximum(drawn @ lengths, 1.0)
    low, high = np.percentile(samples, [2.5, 97.5])
    return Interval(100.0 * float(diff.sum() / lengths.sum()), float(low), float(high))
