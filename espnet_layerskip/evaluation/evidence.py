"""What a development set shows about a change of errors: an interval that holds at small counts.

What is counted is the excess: errors with the change, less those without it and less what the
budget allows. S is its sum over the set and V the variance of S. If the true sum is S + e, then e
errors too few were seen by chance. Errors come in clumps of about c words, so those that were not
seen would have added c e to the variance. The limit is the e that t standard errors can hide::

    e^2 = t^2 (V + c e)    so    e = c t^2 / 2 + t sqrt(V + c^2 t^2 / 4)

- With c = 0 this is Student's interval, which takes a set without changes for certain, as every
  bootstrap does. With V = 0 it is c t^2, 3.84 words for a large set: about the Poisson limit of
  3.69 for "none seen", so that a set whose budget is less than that shows nothing. For counts that
  are independent (c = 1) it is the score interval of a Poisson mean.
- V is the larger of two estimates: between speakers, where there are several, and between
  utterances. t has one degree of freedom less than there are speakers. A single one shows nothing.
- c comes from the set: how much more the errors of full depth vary between utterances than
  independent words would, and how many words change at once, where some do. So what is not seen is
  taken to come in clumps like what is seen. A gate that seldom loses anything, but then a whole
  utterance, is beyond that: only thousands of utterances could show it.

The simulation in tests/evaluation/test_false_acceptance.py holds the error of the first kind to
the nominal 2.5 %.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from espnet_layerskip.evaluation.scoring import Interval

LEVEL = 0.975  # one-sided
ROUNDS = 50  # of the search for a number of utterances; it settles within ten


@dataclass(frozen=True)
class Evidence:
    """A sum over a development set, in words (or characters), and how sure it is.

    Attributes:
        total: The sum S.
        variance: Its variance V.
        clump: Words that change at once, c.
        groups: Speakers, or utterances where there is one speaker only.
        num_ref: Reference tokens of the set.
    """

    total: float
    variance: float
    clump: float
    groups: int
    num_ref: int

    def margin(self) -> float:
        """Return e, in words: what may be hidden beside the sum.

        For a single group it is the whole set, as it is at most otherwise.
        """
        most = max(float(self.num_ref), 2.0 * abs(self.total))
        if self.groups < 2:
            return most
        t = _quantile(self.groups)
        half = self.clump * t * t / 2.0
        return min(most, half + math.sqrt(t * t * self.variance + half * half))

    def interval(self) -> Interval:
        """Return the sum with its limits, in percent points of the reference tokens."""
        scale, margin = 100.0 / self.num_ref, self.margin()
        low, high = self.total - margin, self.total + margin
        return Interval(scale * self.total, scale * low, scale * high)

    def sets_needed(self, wanted: float) -> float | None:
        """Return how many sets like this show that a sum of ``-wanted`` each is below zero.

        Args:
            wanted: Words for each set.

        Returns:
            The number of sets, not rounded; None if no number does.
        """
        if wanted <= 0.0 or self.num_ref == 0:
            return None
        sets = 1.0
        for _ in range(ROUNDS):
            groups = max(2, math.floor(sets * self.groups))
            t2 = _quantile(groups) ** 2
            sets = t2 * (self.variance + self.clump * wanted) / wanted**2
        return max(sets, 2.0 / self.groups)


def collect(
    excess: Sequence[float],
    num_ref: Sequence[int],
    clump: float,
    speakers: Sequence[str] | None = None,
) -> Evidence:
    """Sum an excess up.

    Args:
        excess: Of each utterance, in words.
        num_ref: Its reference tokens, same order.
        clump: See `clump_size`.
        speakers: Its speaker, same order; None = each utterance stands for itself.

    Raises:
        ValueError: For empty or differing lengths.
    """
    if not len(num_ref) or not len(excess) == len(num_ref) == len(speakers or num_ref):
        raise ValueError(
            f"got {len(excess)} and {len(num_ref)} utterances and {len(speakers or num_ref)} "
            "speakers; the same number, at least one, is needed"
        )
    x = np.asarray(excess, dtype=np.float64)
    variance, groups = _variance_of_sum(x), len(x)
    _, speaker = np.unique(speakers or [""], return_inverse=True)
    if speaker.max() > 0:
        sums = np.bincount(speaker, weights=x)
        variance, groups = max(variance, _variance_of_sum(sums)), len(sums)
    return Evidence(float(x.sum()), variance, clump, groups, sum(num_ref))


def clump_size(full_depth: Sequence[int], changes: Sequence[int], num_ref: Sequence[int]) -> float:
    """Return how many words go wrong at once, at least 1.

    The larger of two: the dispersion of full depth's errors (Pearson's chi-square for each degree
    of freedom, 1 for independent words), and the mean size of a change, each word of it counted.

    Args:
        full_depth: Errors of each utterance.
        changes: What the change adds to each; negative where it takes some away.
        num_ref: Reference tokens of each.
    """
    counts, sizes = np.asarray(full_depth, np.float64), np.abs(np.asarray(changes, np.float64))
    expected = counts.sum() * np.asarray(num_ref, np.float64) / max(1, sum(num_ref))
    some = expected > 0
    chi_square = float((np.square(counts - expected)[some] / expected[some]).sum())
    dispersion = chi_square / max(1, int(some.sum()) - 1)
    return max(1.0, dispersion, float(np.square(sizes).sum() / max(1.0, sizes.sum())))


def disagreement(
    differing: Sequence[int],
    num_ref: Sequence[int],
    allowed: float = 0.0,
    speakers: Sequence[str] | None = None,
) -> Interval:
    """Return how much two systems differ beyond what is allowed, in percent points.

    Args:
        differing: Tokens that differ, of each utterance.
        num_ref: Its reference tokens, same order.
        allowed: In percent of the reference tokens.
        speakers: As of `collect`.
    """
    over = [d - allowed / 100.0 * n for d, n in zip(differing, num_ref, strict=True)]
    clump = clump_size(differing, differing, num_ref)
    found = collect(over, num_ref, clump, speakers).interval()
    return Interval(found.difference, max(found.low, -allowed), found.high)  # none is below zero


def _variance_of_sum(x: np.ndarray) -> float:
    """Estimate the variance of the sum of independent terms that have one mean."""
    n = len(x)
    return n / (n - 1) * float(np.square(x - x.mean()).sum()) if n > 1 else 0.0


def _quantile(groups: int) -> float:
    return float(stdtrit(groups - 1, LEVEL))
