"""Which settings a trial decodes with, and which of them it picks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from espnet_layerskip.evaluation.choose import Trial, make_trials
from espnet_layerskip.evaluation.decode import Decoded
from espnet_layerskip.evaluation.open_model import OpenedModel, contexts_of
from espnet_layerskip.evaluation.scoring import Split, check_hypotheses
from espnet_layerskip.method.settings import OFF, SkipSettings

MAX_INCREASE = 2.0  # percent of the error rate at full depth
MAX_DISAGREEMENT = 0.5  # percent of the tokens, where there are no transcripts
WORTH_HAVING = 0.1  # share of the encoder's work that a setting has to save
MOST_LAYERS = 4
# Threshold and extension at one gate, in the first context and in the second; at two gates.
FIRST = ((0.9, (0, 0)), (0.9, (1, 1)), (0.99, (1, 1)), (0.99, (2, 2)))
SECOND = ((0.9, (1, 1)), (0.99, (2, 2)))
CASCADE = ((0.99, (1, 1)),)


@dataclass(frozen=True)
class Choice:
    """The setting that a trial picks.

    Attributes:
        trial: What it gave.
        kept_by: "upper limit", "measured" or "nothing": what of it is within the budget.
    """

    trial: Trial
    kept_by: str


def settings_to_try(opened: OpenedModel, forced: bool = False) -> list[SkipSettings]:
    """Return full depth, then a few settings at each gate and few cascades; all resolved.

    Args:
        opened: The model.
        forced: Use all its gates together, and not one by one.
    """
    encoder, contexts = opened.encoder, contexts_of(opened.encoder)
    layers = opened.gates if forced else few(opened.usable)
    single = [opened.gates] if forced else [(k,) for k in layers]
    pairs = [] if forced else list(pairwise(layers))
    grids = list(zip(contexts, (FIRST, SECOND), strict=False))
    found = [
        SkipSettings(threshold, extension, context, gates)
        for context, grid in grids
        for gates in single
        for threshold, extension in grid
    ]
    found += [SkipSettings(*how, contexts[0], gates) for gates in pairs for how in CASCADE]
    own = opened.own_settings
    if own is not None and not set(own.gates_in_use or ()) <= set(opened.gates):
        own = None  # other gates were asked for
    if own is not None and own.exit_layer is None and not own.full_depth:
        one_each = isinstance(own.blank_threshold, tuple)
        if not one_each or len(own.blank_threshold or ()) == len(opened.gates):  # type: ignore[arg-type]
            found.append(own)
    unique = dict.fromkeys(one.resolved(encoder) for one in found)
    return [OFF.resolved(encoder), *unique]


def few(layers: Sequence[int]) -> tuple[int, ...]:
    """Return at most four of the layers, evenly spread."""
    if len(layers) <= MOST_LAYERS:
        return tuple(layers)
    step = (len(layers) - 1) / (MOST_LAYERS - 1)
    return tuple(layers[round(i * step)] for i in range(MOST_LAYERS))


def judged(
    settings: Sequence[SkipSettings],
    decoded: Sequence[Decoded],
    text: dict[str, str],
    split: Split,
    tokens: Split,
) -> list[Trial]:
    """Return what comes of each setting, full depth first.

    Args:
        settings: Full depth first.
        decoded: What each of them gave.
        text: Transcripts; {} = there are none: what full depth gives takes their place.
        split: Splits a transcript, to count errors.
        tokens: Splits what a model gives, to count disagreement.

    Raises:
        ValueError: If full depth recognises nothing.
    """
    refs = text or decoded[0].hyps
    check_hypotheses(refs, decoded[0].hyps)
    if text:
        return make_trials(settings, decoded, refs, split, MAX_INCREASE)
    return make_trials(settings, decoded, refs, tokens, MAX_DISAGREEMENT, in_points=True)


def pick(trials: Sequence[Trial]) -> Choice | None:
    """Return the choice of a trial; None if no setting saves work.

    The cheapest setting whose upper limit is within the budget; else the cheapest whose rate as
    measured is; else the one that saves most for what it costs. Cheap is few FLOPs of the encoder.

    Args:
        trials: Full depth first.
    """
    full, *others = trials
    saves = [t for t in others if t.encoder_flops <= (1.0 - WORTH_HAVING) * full.encoder_flops]
    if not saves:
        return None
    for kept_by, fit in (
        ("upper limit", [t for t in saves if t.fits]),
        ("measured", [t for t in saves if t.seems_to_fit]),
    ):
        if fit:
            return Choice(min(fit, key=lambda t: (t.encoder_flops, t.rate)), kept_by)

    def bargain(trial: Trial) -> float:
        saved = 1.0 - trial.encoder_flops / full.encoder_flops
        return saved / max(trial.increase.difference, 0.01)

    return Choice(max(saves, key=bargain), "nothing")
