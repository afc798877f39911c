"""Which setting keeps the budget: error rates with intervals, and the cheapest that fits.

The budget is relative: a setting may make at most ``1 + max_increase / 100`` times the errors
which the same weights make at full depth. It is kept if the upper limit of the paired
bootstrap's 95 % interval (the 97.5 percentile over draws of utterances) of

    errors with skipping - (1 + max_increase / 100) * errors at full depth

is not above zero, so that the uncertainty of the full-depth error rate counts too. Of many settings
one may keep the budget by luck: so a setting counts only if all more cautious ones that were tried
keep it too (in the spirit of fixed-sequence testing, Angelopoulos et al., "Learn then Test",
arXiv:2110.01052; their guarantee is not claimed). The one picked is still a little better on the
development set than elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from espnet_layerskip.evaluation.scoring import ROUNDING, Interval, paired_bootstrap
from espnet_layerskip.method.settings import SkipSettings

NUM_DRAWS = 4000
# Upper 97.5 % limit of a Poisson mean of which nothing was seen: -ln(0.025).
NONE_SEEN = 3.69


@dataclass(frozen=True)
class Trial:
    """One setting on the development set.

    Attributes:
        settings: The setting.
        rate: Its error rate in percent.
        increase: Over full depth, in percent points, with its 95 % interval.
        excess: Over the budget, in percent points, with its 95 % interval.
        skip_ratio: Share of the frames that skipped at least one layer.
        encoder_flops: Of the encoder, over the whole set.
        utterances_needed: How many utterances like these would show the budget kept by a
            setting that differs from full depth as much as this one but loses nothing; None if
            no number does (full depth makes no error, so that the budget is zero).
    """

    settings: SkipSettings
    rate: float
    increase: Interval
    excess: Interval
    skip_ratio: float
    encoder_flops: int
    utterances_needed: int | None

    @property
    def fits(self) -> bool:
        """True if the upper limit keeps the budget."""
        return self.excess.high <= ROUNDING

    @property
    def seems_to_fit(self) -> bool:
        """True if the error rate as measured keeps the budget, whatever its interval."""
        return self.excess.difference <= ROUNDING

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
) -> Trial:
    """Compare a setting with full depth of the same weights.

    Args:
        settings: The setting.
        errors: Its errors for each utterance.
        full_depth: Those at full depth, same order.
        num_ref: Reference tokens, same order.
        max_increase: Budget in percent of the full-depth error rate.
        skip_ratio, encoder_flops: As of `Trial`.

    Raises:
        ValueError: For empty or differing lengths.
    """
    allowed = [(1.0 + max_increase / 100.0) * e for e in full_depth]
    increase = paired_bootstrap(errors, full_depth, num_ref, NUM_DRAWS)
    excess = paired_bootstrap(errors, allowed, num_ref, NUM_DRAWS)
    budget_errors = max_increase / 100.0 * sum(full_depth)
    needed = None
    if budget_errors > 0:
        # the half-width falls with the square root of the number of utterances
        spread = (increase.high - increase.difference) / (100.0 * budget_errors / sum(num_ref))
        needed = math.ceil(len(errors) * max(spread**2, NONE_SEEN / budget_errors))
    rate = 100.0 * sum(errors) / sum(num_ref)
    return Trial(settings, rate, increase, excess, skip_ratio, encoder_flops, needed)


def choose(
    trials: Sequence[Trial], full_depth: Trial, point_estimate: bool = False
) -> tuple[Trial, str]:
    """Return the cheapest setting that keeps the budget, and what of it does.

    Every more cautious setting that was tried, which runs the same frames and more, has to keep
    the budget as well. Cheapest by encoder FLOPs; of equally cheap ones the one with the fewest
    errors, then the more cautious one (higher threshold).

    Args:
        trials: Settings tried.
        full_depth: Is returned, with "nothing", if none of them fits and saves FLOPs.
        point_estimate: Where no upper bound keeps the budget, go by the rate as measured.
    """
    cheaper = [t for t in trials if t.encoder_flops < full_depth.encoder_flops]
    over_budget = {"upper bound": [t for t in trials if not t.fits]}
    if point_estimate:
        over_budget["point estimate"] = [t for t in trials if not t.seems_to_fit]
    for name, over in over_budget.items():
        group = [t for t in cheaper if not any(_runs_as_much(o.settings, t.settings) for o in over)]
        if group:
            return min(group, key=_cost), name
    return full_depth, "nothing"


def _runs_as_much(one: SkipSettings, other: SkipSettings) -> bool:
    """Return whether ``one`` runs every frame that ``other`` runs, in the same way."""
    if (one.skip_context, one.repeat_threshold) != (other.skip_context, other.repeat_threshold):
        return False
    gates, more = one.gates_in_use, other.gates_in_use
    fewer_gates = more is None or (gates is not None and set(gates) <= set(more))
    wider = _at_least(one.spike_extension, other.spike_extension)
    return fewer_gates and wider and _at_least(one.blank_threshold, other.blank_threshold)


def _at_least(one: Any, other: Any) -> bool:
    """Compare number by number; one alone stands for as many as the other has."""
    return bool(np.all(np.asarray(one or 0.0) >= np.asarray(other or 0.0)))


def _cost(trial: Trial) -> tuple[float, ...]:
    highest = float(np.max(trial.settings.blank_threshold or 0.0))
    return trial.encoder_flops, trial.rate, -highest


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
        utterances: In the development set.
    """
    if all(t.encoder_flops >= full_depth.encoder_flops for t in trials):
        return ["no setting skips a frame there: the gate's head finds no blank; skipping is off"]
    out, judged = [], chosen
    if kept_by == "nothing":
        out.append(
            f"no setting is shown to keep an increase of at most {max_increase:g} % (relative): "
            "skipping is off"
        )
        candidates = [t for t in trials if t.seems_to_fit] or trials
        judged = min(candidates, key=lambda t: t.utterances_needed or math.inf)
    if kept_by == "point estimate":
        out.append(
            "only the point estimate keeps the budget: on other speech the increase may well be "
            f"larger (upper limit {chosen.excess.high:+.2f} points over the budget)"
        )
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
