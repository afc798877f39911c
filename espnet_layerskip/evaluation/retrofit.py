"""A retrofitted model on a development set: before and after, and whether it keeps its budget.

Everything is judged against the stock model at full depth. With transcripts the budget is an
increase of its error rate. Without, its transcripts stand in for them, and the budget is how
many points of the words (or characters) may differ: an error rate rises by no more than that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from espnet_layerskip.encoders.convert import from_stock
from espnet_layerskip.evaluation.choose import Trial, choose, find_warnings, make_trials
from espnet_layerskip.evaluation.decode import Decoded, decode, one_pass_groups
from espnet_layerskip.evaluation.experiment import Experiment, load_experiment
from espnet_layerskip.evaluation.grid import settings_to_try
from espnet_layerskip.evaluation.inputs import TestSet
from espnet_layerskip.evaluation.open_model import OpenedModel
from espnet_layerskip.evaluation.progress import note_utterances, to_stderr
from espnet_layerskip.evaluation.scoring import SPLITS, check_hypotheses
from espnet_layerskip.evaluation.systems import System


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


@dataclass(frozen=True)
class Judgement:
    """What was found on the development set.

    Attributes:
        rows: Before and after, lines of the table: "name"; "settings"; "rate", an error rate in
            percent, or without transcripts the disagreement; "increase", an interval; "skip_ratio";
            "gflops" of the encoder, for a second of audio.
        chosen: The cheapest setting that keeps the budget; full depth if none does.
        kept_by: As of `choose`: "upper bound", "point estimate" or "nothing".
        full_depth: The retrofitted model at full depth.
        sweep: All settings that were tried.
        warnings: What to know before relying on it.
    """

    rows: list[dict[str, Any]]
    chosen: Trial
    kept_by: str
    full_depth: Trial
    sweep: list[Trial]
    warnings: list[str]

    def to_json(self) -> dict[str, Any]:
        """Return plain types."""
        return {
            "rows": self.rows,
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
    [stock] = _decode([System(opened)], data, "the stock model")
    refs = data.text if budget.labels else stock.hyps
    check_hypotheses(refs, stock.hyps)
    judged = partial(
        make_trials,
        refs=refs,
        split=SPLITS[budget.metric],
        budget=budget.amount,
        in_points=not budget.labels,
        speakers=[data.utt2spk[utt] for utt in refs],
        full_depth=stock,
    )
    [group] = one_pass_groups([System(experiment, one) for one in settings])
    found = _decode(group, data, f"{len(settings)} settings of the retrofitted model")
    full, *tried = judged(settings, found)
    chosen, kept_by = choose(tried, full, point_estimate)
    warnings = warnings_of(budget, tried, full, chosen, kept_by, len(data.speech))
    shown = chosen
    if kept_by == "nothing":  # what comes nearest
        cheaper = [t for t in tried if t.encoder_flops < full.encoder_flops]
        shown = min(cheaper or tried, key=lambda t: t.excess.high)
    [as_it_was] = judged(settings[:1], [stock])
    rows = [("stock model, full depth", as_it_was)]
    if trained:
        untrained = System(opened, shown.settings, encoder=gated(opened, experiment))
        decoded = _decode([untrained], data, "the stock weights with gates")
        [without] = judged([shown.settings], decoded)
        rows.append(("stock weights, these gates", without))
    none = "" if shown is chosen else ": none keeps the budget, this one is nearest"
    rows += [("retrofitted, full depth", full), (f"retrofitted, skipping{none}", shown)]
    listed = [
        {
            "name": name,
            "settings": "" if one.settings.full_depth else one.settings.describe(),
            "rate": one.rate,
            "increase": asdict(one.increase),
            "skip_ratio": one.skip_ratio,
            "gflops": one.encoder_flops / data.seconds / 1e9,
        }
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
    to_stderr(f"development set: {what}")
    return decode(systems, data, note_utterances(to_stderr, what, len(data.speech)))
