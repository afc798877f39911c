"""Which setting keeps the budget: error rates with intervals, and the cheapest that fits.

The budget is relative: a setting may make at most ``1 + max_increase / 100`` times the errors
which the same weights make at full depth. It is shown to keep it if the upper limit (97.5 %,
`espnet_layerskip.evaluation.evidence`) of

    errors with skipping - (1 + max_increase / 100) * errors at full depth

is not above zero, so that the uncertainty of the full-depth error rate counts too.

Many settings are tried, and some would fit by luck. So they are tested in a fixed order, from the
one that runs the most to the one that runs the least, and the first that fails ends the test
(fixed-sequence testing, Angelopoulos et al., "Learn then Test", arXiv:2110.01052). Whatever their
number, a setting over the budget is accepted with the probability of one test: for that, the
first one over the budget has to pass. The order is that of the encoder's FLOPs, which no transcript
enters. Bonferroni's correction for 18 settings would ask for 99.86 % in every single test.

Several conditions (sets, shifted copies) need no correction either. A setting is over the budget
if it is so in any of them, and is accepted only if the test of each one accepts it. So it has to
pass the very test that it should fail: again the probability of one test at most, however the
conditions depend on each other (intersection-union test, Berger 1982). That is all that the fixed
sequence asks of the test of a setting.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import takewhile
from operator import attrgetter
from typing import Any

import numpy as np

from espnet_layerskip.evaluation.decode import Decoded
from espnet_layerskip.evaluation.evidence import clump_size, collect, disagreement
from espnet_layerskip.evaluation.scoring import ROUNDING, Interval, Split, score
from espnet_layerskip.method.settings import SkipSettings

NO_CHANGE = Interval(0.0, 0.0, 0.0)
MEASURABLE = 0.01  # of full depth's FLOPs: a smaller difference is no difference in time


@dataclass(frozen=True)
class Condition:
    """Data that a setting is tried on: a set as it is, or a shifted copy.

    Attributes:
        name: For people.
        utterances: How many it has.
        max_increase: Its budget in percent of the full-depth error rate.
        is_copy: Whether it is a shifted copy.
    """

    name: str
    utterances: int
    max_increase: float
    is_copy: bool = False


@dataclass(frozen=True)
class Measured:
    """One setting in one of several conditions; the rest as of `Trial`."""

    condition: Condition
    rate: float
    increase: Interval
    excess: Interval
    skip_ratio: float
    utterances_needed: int | None


@dataclass(frozen=True)
class Trial:
    """One setting on the development set; of several conditions the first, if not said otherwise.

    Attributes:
        settings: The setting.
        rate: Its error rate in percent.
        increase: Over full depth, in percent points, with its 95 % interval.
        excess: Over the budget, in percent points, with its 95 % interval; of several conditions
            that of the worst, which is furthest over its budget.
        skip_ratio: Share of the frames that skipped at least one layer.
        encoder_flops: Of the encoder, over the whole set; without copies.
        utterances_needed: How many utterances like these would show the budget kept by a
            setting that differs from full depth as much as this one but loses nothing; None if
            no number does (full depth makes no error, so that the budget is zero). Of several
            conditions the most.
        conditions: What was measured in each of several; () = there is one only.
    """

    settings: SkipSettings
    rate: float
    increase: Interval
    excess: Interval
    skip_ratio: float
    encoder_flops: int
    utterances_needed: int | None
    conditions: tuple[Measured, ...] = ()

    @property
    def fits(self) -> bool:
        """True if the upper limit keeps the budget, in each condition."""
        return self.excess.high <= ROUNDING

    @property
    def seems_to_fit(self) -> bool:
        """True if the error rate as measured keeps the budget, whatever its interval."""
        return all(one.excess.difference <= ROUNDING for one in self.conditions or (self,))

    def to_json(self) -> dict[str, Any]:
        """Return plain types."""
        return {**asdict(self), "settings": self.settings.to_json(), "fits": self.fits}


def make_trial(
    settings: SkipSettings,
    errors: Sequence[int],
    full_depth: Sequence[int],
    num_ref: Sequence[int],
    max_increase: float,
    skip_ratio: float,
    encoder_flops: int,
    speakers: Sequence[str] | None = None,
) -> Trial:
    """Compare a setting with full depth of the same weights.

    Args:
        settings: The setting.
        errors: Its errors for each utterance.
        full_depth: Those at full depth, same order.
        num_ref: Reference tokens, same order.
        max_increase: Budget in percent of the full-depth error rate.
        skip_ratio, encoder_flops: As of `Trial`.
        speakers: Speaker of each utterance; None = each utterance stands for itself.

    Raises:
        ValueError: For empty or differing lengths.
    """
    allowed = max_increase / 100.0
    changes = [e - f for e, f in zip(errors, full_depth, strict=True)]
    clump = clump_size(full_depth, changes, num_ref)
    increase = collect(changes, num_ref, clump, speakers)
    over = [c - allowed * f for c, f in zip(changes, full_depth, strict=True)]
    excess = collect(over, num_ref, clump, speakers)
    sets = excess.sets_needed(allowed * sum(full_depth))
    return Trial(
        settings,
        100.0 * sum(errors) / sum(num_ref),
        NO_CHANGE if settings.full_depth and not any(changes) else increase.interval(),
        excess.interval(),
        skip_ratio,
        encoder_flops,
        None if sets is None else math.ceil(sets * len(errors)),
    )


def make_trials(
    settings: Sequence[SkipSettings],
    decoded: Sequence[Decoded],
    refs: Mapping[str, str],
    split: Split,
    budget: float,
    *,
    in_points: bool = False,
    speakers: Sequence[str] | None = None,
    full_depth: Decoded | None = None,
) -> list[Trial]:
    """Return what comes of each setting.

    Args:
        settings: The settings.
        decoded: What each of them gave.
        refs: Transcripts; with ``in_points`` those of full depth.
        split: From a transcript to what is counted.
        budget: In percent of the error rate at full depth (see `make_trial`).
        in_points: The budget is how many tokens in a hundred may be others than those of full
            depth.
        speakers: As of `make_trial`, in the order of the transcripts.
        full_depth: What full depth gave; None = the first of ``decoded``.
    """

    def errors(one: Decoded) -> list[int]:
        return [counts.errors for counts in score(refs, one.hyps, split).values()]

    base, num_ref = errors(full_depth or decoded[0]), [len(split(ref)) for ref in refs.values()]
    found = []
    for how, one in zip(settings, decoded, strict=True):
        wrong, did = errors(one), (one.skipped.ratio, one.encoder_flops)
        if not in_points:
            found.append(make_trial(how, wrong, base, num_ref, budget, *did, speakers))
            continue
        rate = 100.0 * sum(wrong) / sum(num_ref)
        same = how.full_depth and not any(wrong)
        differ = NO_CHANGE if same else disagreement(wrong, num_ref, speakers=speakers)
        over = disagreement(wrong, num_ref, budget, speakers)
        found.append(Trial(how, rate, differ, over, *did, None))
    return found


def over_conditions(trials: Sequence[Trial], conditions: Sequence[Condition]) -> Trial:
    """Return what one setting does over all conditions, see `Trial`; of one only: as it is.

    Args:
        trials: Of the setting, one for each condition.
        conditions: Same order, the first is no copy.
    """
    if len(trials) == 1:
        return trials[0]
    measured = tuple(
        Measured(c, t.rate, t.increase, t.excess, t.skip_ratio, t.utterances_needed)
        for c, t in zip(conditions, trials, strict=True)
    )
    given = [c.utterances for c in conditions if not c.is_copy]
    needed = [
        sum(given) * (m.utterances_needed / m.condition.utterances)
        for m in measured
        if m.utterances_needed is not None
    ]
    return replace(
        trials[0],
        excess=max((m.excess for m in measured), key=attrgetter("high")),
        encoder_flops=sum(t.encoder_flops for t in trials[: len(given)]),
        utterances_needed=math.ceil(max(needed)) if len(needed) == len(measured) else None,
        conditions=measured,
    )


def choose(
    trials: Sequence[Trial],
    full_depth: Trial,
    point_estimate: bool = False,
    any_extension: bool = False,
) -> tuple[Trial, str]:
    """Return the cheapest setting that keeps the budget, and what of it does.

    Every setting that was tried and runs more has to keep the budget as well: see the head of
    this file. Of those that do, all within `MEASURABLE` of the fewest encoder FLOPs are equally
    cheap: of these the one with the fewest errors, then with the fewest FLOPs, then the more
    cautious one (higher threshold).

    Args:
        trials: Settings tried.
        full_depth: Is returned, with "nothing", if none of them fits and saves measurably.
        point_estimate: Where no upper bound keeps the budget, go by the rate as measured. So few
            words cannot tell whether a kept frame needs its neighbours, which other speech needs
            more: only settings with one on each side are taken.
        any_extension: Take others by the rate as measured, too.
    """
    tests = {"upper bound": attrgetter("fits")}
    if point_estimate:
        tests["point estimate"] = attrgetter("seems_to_fit")
    for name, fits in tests.items():
        kept = list(takewhile(fits, in_order(trials, full_depth)))
        if name == "point estimate" and not any_extension:
            kept = [t for t in kept if min(t.settings.spike_extension or (0, 0)) > 0]
        if kept:
            limit = kept[-1].encoder_flops + MEASURABLE * full_depth.encoder_flops
            return min((t for t in kept if t.encoder_flops <= limit), key=_cost), name
    return full_depth, "nothing"


def in_order(trials: Sequence[Trial], full_depth: Trial) -> list[Trial]:
    """Return the settings that save measurable FLOPs, in the order in which they are tested."""
    limit = (1.0 - MEASURABLE) * full_depth.encoder_flops
    cheaper = [t for t in trials if t.encoder_flops <= limit]
    return sorted(cheaper, key=lambda t: (-t.encoder_flops, -_highest(t)))


def _where(trial: Trial) -> str:
    worst = max(trial.conditions, key=lambda one: one.excess.high, default=None)
    return "" if worst is None else f" on {worst.condition.name}"


def _cost(trial: Trial) -> tuple[float, ...]:
    return trial.rate, trial.encoder_flops, -_highest(trial)


def _highest(trial: Trial) -> float:
    return float(np.max(trial.settings.blank_threshold or 0.0))


def find_warnings(
    trials: Sequence[Trial],
    full_depth: Trial,
    chosen: Trial,
    kept_by: str,
    max_increase: float,
    utterances: int,
) -> list[str]:
    """Return what to know before relying on a choice.

    Args:
        trials, full_depth: As `choose` took them, at least one trial.
        chosen, kept_by: What `choose` returned.
        max_increase: The budget.
        utterances: In the development set, without copies.
    """
    tested = in_order(trials, full_depth)
    if not tested:
        least = max((t.settings.min_skipped_frames or 0 for t in trials), default=0)
        why = "the gate's head finds no blank"
        if least:
            why = (
                f"its utterances have fewer than the {least} frames to drop that it takes to save "
                "time on this machine, or the gate's head finds no blank"
            )
        if any(t.encoder_flops < full_depth.encoder_flops for t in trials):
            saves = f"no setting saves {100 * MEASURABLE:g} % of the encoder's FLOPs there"
            return [f"{saves}: few frames skip, or few layers; skipping is off"]
        return [f"no setting skips a frame there: {why}; skipping is off"]
    if kept_by == "upper bound":
        return []
    budget = f"an increase of at most {max_increase:g} % (relative)"
    if kept_by == "nothing":
        judged = tested[0]
        out = [f"no setting is shown to keep {budget}{_where(judged)}: skipping is off"]
    else:
        judged = chosen
        out = [
            f"the setting is not shown to keep {budget}: only the point estimate keeps it. On "
            "other speech the increase may well be larger (upper limit "
            f"{chosen.excess.high:+.2f} points over the budget{_where(chosen)})"
        ]
    if judged.utterances_needed is None:
        out.append(
            "full depth makes no error on the development set, so that the budget is zero errors "
            "there: use harder or more speech"
        )
    elif judged.utterances_needed > utterances:
        out.append(
            f"the development set of {utterances} utterances is too small for a budget of "
            f"{max_increase:g} %: at least about {judged.utterances_needed} like these are needed "
            "to show that a setting without any loss keeps it; give more, or a larger budget"
        )
    return out
