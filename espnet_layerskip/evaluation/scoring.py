"""Error rates of transcripts, and a paired bootstrap over utterances."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from espnet_layerskip.recipe.score_table import Counts


def error_rate(counts: Counts) -> float:
    """Return the errors in percent of the reference tokens.

    Raises:
        ValueError: If there are no reference tokens.
    """
    if counts.words == 0:
        raise ValueError("the references have no tokens: an error rate needs at least one")
    return 100.0 * counts.errors / counts.words


def words(text: str) -> list[str]:
    """Split a transcript into words, as it is: no case folding, no normalisation."""
    return text.split()


def characters(text: str) -> list[str]:
    """Split a transcript into characters; a space between words is one, as ESPnet counts."""
    return list(" ".join(text.split()))


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
        raise ValueError(f"all {len(refs)} transcripts are empty")


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
    seed: int = 0,
) -> Interval:
    """Return the difference of two error rates on the same utterances, with its interval.

    Utterances are drawn with replacement, the same ones for both systems; the interval is
    the 2.5 and 97.5 percentile of the drawn differences. It covers the choice of test
    utterances, not the choice of training seed: give errors averaged over the seeds.

    Args:
        errors: Errors for each utterance.
        baseline_errors: Errors of the system it is compared with, same order.
        num_ref: Reference tokens for each utterance, same order.
        num_samples: Draws.
        seed: The same seed gives the same interval.

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
    n = len(lengths)
    drawn = np.random.default_rng(seed).multinomial(n, np.full(n, 1.0 / n), size=num_samples)
    samples = 100.0 * (drawn @ diff) / np.maximum(drawn @ lengths, 1.0)
    low, high = np.percentile(samples, [2.5, 97.5])
    return Interval(100.0 * float(diff.sum() / lengths.sum()), float(low), float(high))
