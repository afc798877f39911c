"""A retrofitted model on a development set: before and after, and whether it keeps its budget.

Everything is judged against the stock model at full depth. With transcripts the budget is an
increase of its error rate. Without, its transcripts stand in for them, and the budget is how
many points of the words (or characters) may differ: an error rate rises by no more than that.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from espnet_layerskip.encoders.convert import from_stock
from espnet_layerskip.evaluation.calibrate import SweepProgress
from espnet_layerskip.evaluation.choose import Trial, choose, find_warnings, make_trial
from espnet_layerskip.evaluation.decode import Decoded, decode, one_pass_groups
from espnet_layerskip.evaluation.evidence import disagreement
from espnet_layerskip.evaluation.experiment import Experiment, load_experiment
from espnet_layerskip.evaluation.grid import settings_to_try
from espnet_layerskip.evaluation.inputs import TestSet
from espnet_layerskip.evaluation.open_model import OpenedModel
from espnet_layerskip.evaluation.scoring import (
    Interval,
    characters,
    check_hypotheses,
    score,
    words,
)
from espnet_layerskip.evaluation.systems import System
from espnet_layerskip.method.settings import SkipSettings


@dataclass(frozen=True)
class Budget:
    """How much worse than the stock model at full depth a setting may be.

    Attributes:
        metric: "wer" or "cer": what is counted.
        amount: With ``labels`` percent of the stock model's error rate, else points that differ.
        labels: Whether transcripts are the reference.
    """

    metric: str
    amount: float
    labels: bool

    def describe(self) -> str:
        """Return the budget in words."""
        name = self.metric.upper()
        if self.labels:
            return f"{name} at most {self.amount:g} % (relative) above the stock model's"
        unit = "words" if self.metric == "wer" else "characters"
        return f"at most {self.amount:g} % of the {unit} other than the stock model's"

    def trial(
        self,
        settings: SkipSettings,
        wrong: list[int],
        stock: list[int],
        decoded: Decoded,
        num_ref: list[int],
        speakers: list[str] | None = None,
    ) -> Trial:
        """Return a setting's errors set against the budget.

        Args:
            settings: The setting.
            wrong: Its errors of each utterance.
            stock: Those of the stock model at full depth.
            decoded: What it skipped and cost.
            num_ref: Reference tokens of each utterance.
            speakers: Speaker of each utterance; None = each utterance stands for itself.
        """
        skipped, flops = decoded.skipped.ratio, decoded.encoder_flops
        found = make_trial(settings, wrong, stock, num_ref, self.amount, skipped, flops, speakers)
        if self.labels:
            return found
        excess = disagreement(wrong, num_ref, self.amount, speakers)
        return replace(found, excess=excess, utterances_needed=None)


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        name: What it is.
        settings: How it skips.
        rate: Error rate in percent; without transcripts the disagreement.
        increase: Over the stock model at full depth, in points, with its 95 % interval.
        skip_ratio: Share of frames that skipped a layer.
        gflops: Of the encoder, for a second of audio.
    """

    name: str
    settings: str
    rate: float
    increase: Interval
    skip_ratio: float
    gflops: float


@dataclass(frozen=True)
class Judgement:
    """What was found on the development set.

    Attributes:
        rows: Before and after.
        chosen: The cheapest setting that keeps the budget; full depth if none does.
        kept_by: As of `choose`: "upper bound", "point estimate" or "nothing".
        full_depth: The retrofitted model at full depth.
        sweep: All settings that were tried.
        warnings: What to know before relying on it.
    """

    rows: list[Row]
    chosen: Trial
    kept_by: str
    full_depth: Trial
    sweep: list[Trial]
    warnings: list[str]

    @property
    def rejected(self) -> bool:
        """True if no setting keeps the budget."""
        return self.kept_by == "nothing"

    def to_json(self) -> dict[str, Any]:
        """Return plain types."""
        return {
            "rows": [asdict(row) for row in self.rows],
            "kept_by": self.kept_by,
            "chosen": self.chosen.to_json(),
            "sweep": [trial.to_json() for trial in self.sweep],
            "warnings": self.warnings,
        }


def judge_retrofit(
    opened: OpenedModel,
    exp: Path,
    data: TestSet,
    budget: Budget,
    point_estimate: bool,
    trained: bool,
) -> Judgement:
    """Decode the development set before and after, and choose a setting.

    Args:
        opened: The stock model.
        exp: The retrofitted one, as it was written.
        data: Development set; ``text`` is not looked at unless the budget has labels.
        budget: What may be lost.
        point_estimate: As of `choose`.
        trained: Whether the weights differ from the stock model's, with the same heads: then
            these with the same gates are a row of their own.

    Raises:
        ValueError: If all transcripts of the stock model are empty.
    """
    experiment = load_experiment(exp, blank_threshold=None)
    settings = settings_to_try(experiment)
    [stock] = _decode([System(opened.experiment)], data, "the stock model")
    text = data.text if budget.labels else stock.hyps
    check_hypotheses(text, stock.hyps)
    split = words if budget.metric == "wer" else characters

    def errors(decoded: Decoded) -> list[int]:
        return [counts.errors for counts in score(text, decoded.hyps, split).values()]

    num_ref = [counts.words for counts in score(text, stock.hyps, split).values()]
    before = errors(stock)
    speakers = [data.utt2spk[utt] for utt in text]

    def trial(how: SkipSettings, decoded: Decoded) -> Trial:
        return budget.trial(how, errors(decoded), before, decoded, num_ref, speakers)

    [group] = one_pass_groups([System(experiment, one) for one in settings])
    found = _decode(group, data, f"{len(settings)} settings of the retrofitted model")
    full, *tried = [trial(how, one) for how, one in zip(settings, found, strict=True)]
    chosen, kept_by = choose(tried, full, point_estimate)
    warnings = warnings_of(budget, tried, full, chosen, kept_by, len(data.speech))
    shown = chosen
    if kept_by == "nothing":  # what comes nearest
        cheaper = [t for t in tried if t.encoder_flops < full.encoder_flops]
        shown = min(cheaper or tried, key=lambda t: t.excess.high)
    rows = [("stock model, full depth", trial(settings[0], stock))]
    if trained:
        untrained = System(opened.experiment, shown.settings, encoder=gated(opened, experiment))
        [decoded] = _decode([untrained], data, "the stock weights with gates")
        rows.append(("stock weights, these gates", trial(shown.settings, decoded)))
    last = (
        "skipping: none keeps the budget, this one is nearest"
        if shown is not chosen
        else "skipping"
    )
    rows += [("retrofitted, full depth", full), (f"retrofitted, {last}", shown)]
    listed = [
        Row(
            name,
            "" if one.settings.full_depth else one.settings.describe(),
            one.rate,
            one.increase,
            one.skip_ratio,
            one.encoder_flops / data.seconds / 1e9,
        )
        for name, one in rows
    ]
    return Judgement(listed, chosen, kept_by, full, tried, warnings)


def gated(opened: OpenedModel, experiment: Experiment) -> Any:
    """Return the stock model's encoder with the gates of a retrofitted one, in its fast form."""
    encoder = experiment.encoder
    found = from_stock(opened.encoder, encoder.gate_layer_idx, skip_context=encoder.skip_context)
    if opened.encoder.fast_form() is not None:
        found.optimize_for_inference()
    return found


def warnings_of(
    budget: Budget,
    tried: Sequence[Trial],
    full: Trial,
    chosen: Trial,
    kept_by: str,
    utterances: int,
) -> list[str]:
    """Return what to know before relying on a choice; see `find_warnings`."""
    if budget.labels:
        return find_warnings(tried, full, chosen, kept_by, budget.amount, utterances)
    if kept_by == "nothing":
        least = min(tried, key=lambda t: t.excess.high)
        return [
            f"no setting is shown to keep {budget.describe()}: the nearest one has "
            f"{least.rate:.2f} % (upper limit {least.increase.high:.2f} %)"
        ]
    if kept_by == "point estimate":
        return [
            "only the point estimate keeps the budget: on other speech more may differ (upper "
            f"limit {chosen.increase.high:.2f} %)"
        ]
    return []


def _decode(systems: Sequence[Any], data: TestSet, what: str) -> list[Decoded]:
    print(f"development set: {what}", file=sys.stderr)
    progress = SweepProgress(len(data.speech), len(systems))
    return decode(systems, data, progress)
