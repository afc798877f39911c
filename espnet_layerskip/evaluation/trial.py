"""A trial: what a trained model gains from the fast form and from skipping, without training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from statistics import median
from typing import Any

import torch

from espnet_layerskip._compat import TooShortUttError
from espnet_layerskip.evaluation.choose import Trial
from espnet_layerskip.evaluation.decode import Decoded, decode, one_pass_groups
from espnet_layerskip.evaluation.environment import environment_record, finish_record
from espnet_layerskip.evaluation.flops import counted
from espnet_layerskip.evaluation.inputs import Speech, spread_over_durations
from espnet_layerskip.evaluation.open_model import OpenedModel
from espnet_layerskip.evaluation.progress import Log, note_utterances
from espnet_layerskip.evaluation.scoring import SPLITS, error_rate, score
from espnet_layerskip.evaluation.systems import System
from espnet_layerskip.evaluation.timing import summary, time_interleaved
from espnet_layerskip.evaluation.trial_data import TrialData
from espnet_layerskip.evaluation.trial_settings import Choice, judged, pick, settings_to_try
from espnet_layerskip.method.ctc import BLANK
from espnet_layerskip.method.settings import OFF
from espnet_layerskip.method.walk import advance

STOCK, FULL, SKIP = "stock", "full", "skip"
ENCODER, WAVE = "encoder", "wave to text"
TIMED_SECONDS, MAX_TIMED, REPEATS = 30.0, 12, 7

Times = dict[str, dict[str, list[float]]]
"""Seconds of each pass, by scope and row."""


@dataclass(frozen=True)
class Ceiling:
    """What a gate after a layer can save of the encoder's arithmetic, counted on the timed speech.

    Attributes:
        layer: K, the layer of the (lowest) gate.
        layers: L.
        stem: Share of the subsampling, which no gate saves.
        lower: Share of layers 1 to K, which no gate after them saves.
        blank: Share of the frames that the final head calls blank.
        trained: False if the layer's head is not trained: K is an example.
    """

    layer: int
    layers: int
    stem: float
    lower: float
    blank: float
    trained: bool

    @property
    def left(self) -> float:
        """Share of the arithmetic that is left if all blank frames skip."""
        return 1.0 - self.blank * (1.0 - self.stem - self.lower)


@dataclass(frozen=True)
class TrialResult:
    """What a trial found.

    Attributes:
        opened: The model.
        data: What it was tried on.
        metric: "wer", "cer", or "disagreement" (of tokens, with full depth).
        trials: Full depth, then every setting that was tried; empty without a CTC head.
        choice: The setting that was picked; None if there is none.
        stock_rate: Error rate of ESPnet's class; None without transcripts.
        differing: Utterances whose transcript our full depth changes; None if not decoded.
        times: Of `STOCK`, `FULL` and `SKIP`, in the scopes `ENCODER` and `WAVE`.
        timed_seconds: Audio of a timed pass.
        ceiling: None without a CTC head.
        environment: See `environment_record`.
    """

    opened: OpenedModel
    data: TrialData
    metric: str
    times: Times
    timed_seconds: float
    trials: list[Trial] = field(default_factory=list)
    choice: Choice | None = None
    stock_rate: float | None = None
    differing: int | None = None
    ceiling: Ceiling | None = None
    environment: dict[str, Any] = field(default_factory=dict)

    def speedup(self, scope: str, row: str, over: str = STOCK) -> tuple[float, float, float]:
        """Return how many times as fast a row is: ratio of the medians, then of single passes.

        Returns:
            Ratio, its smallest and its largest value over the interleaved passes.
        """
        slow, fast = self.times[scope][over], self.times[scope][row]
        ratios = [a / b for a, b in zip(slow, fast, strict=True)]
        return median(slow) / median(fast), min(ratios), max(ratios)

    def to_json(self) -> dict[str, Any]:
        """Return plain types."""
        opened, choice = self.opened, self.choice
        return {
            "model": opened.source,
            "checkpoint": opened.checkpoint,
            "sha256": opened.sha256,
            "encoder": opened.stock_class,
            "layers": opened.num_layers,
            "trained_layers": list(opened.trained),
            "why_no_gates": opened.no_gates or None,
            "why_no_fast_form": opened.no_fast or None,
            "data": {**self.data.test.describe(), "of": self.data.total},
            "notes": list(self.data.notes),
            "metric": self.metric,
            "stock_rate": self.stock_rate,
            "utterances_changed_by_fast_form": self.differing,
            "chosen": None if choice is None else choice.trial.to_json(),
            "kept_by": None if choice is None else choice.kept_by,
            "trials": [trial.to_json() for trial in self.trials],
            "ceiling": None if self.ceiling is None else vars(self.ceiling),
            "timed_audio_seconds": self.timed_seconds,
            "times": {
                scope: {row: summary(taken) for row, taken in rows.items()}
                for scope, rows in self.times.items()
            },
            "environment": self.environment,
        }


def run_trial(
    opened: OpenedModel,
    data: TrialData,
    metric: str = "wer",
    log: Log = lambda line: None,
    forced: bool = False,
) -> TrialResult:
    """Decode and time a model as it is, in its fast form, and with gates; nothing is written.

    Args:
        opened: The model; its encoder is in a class of ours (``no_ours`` is empty).
        data: What to try it on.
        metric: "wer" or "cer", where there are transcripts.
        log: Takes lines about the progress.
        forced: The gates were asked for: use all of them together.

    Raises:
        ValueError: If nothing is recognised, or all of the speech is too short.
    """
    environment = environment_record()
    stock, full = opened.stock(), System(opened, OFF)
    rows = {STOCK: stock, FULL: full}
    timed = timed_speech(full, data.test.speech)
    found: dict[str, Any] = {}
    if opened.has_ctc:
        split, total = SPLITS[metric], len(data.test.speech)
        log("decoding with ESPnet's class")
        [as_stock] = decode([stock], data.test, note_utterances(log, "ESPnet's class", total))
        settings = settings_to_try(opened, forced) if opened.gates else [OFF]
        gates = f" and {len(settings) - 1} settings of gates after layers {[*opened.gates]}"
        log(f"decoding at full depth{gates if len(settings) > 1 else ''}")
        decoded = _decode(opened, settings, data, log)
        trials = judged(settings, decoded, data.test.text, split, opened.tokens)
        hyps = decoded[0].hyps
        found |= {
            "trials": trials,
            "choice": pick(trials),
            "differing": sum(hyps[u] != as_stock.hyps[u] for u in hyps),
        }
        if data.labelled:
            counts = score(data.test.text, as_stock.hyps, split)
            found["stock_rate"] = error_rate(counts.values())
        if (choice := found["choice"]) is not None:
            rows[SKIP] = System(opened, choice.trial.settings)
        found["ceiling"] = find_ceiling(opened, full, timed, found["choice"])
    log(f"timing {len(rows)} forms in turns on {sum(s.seconds for s in timed):.0f} s of audio")
    times = time_rows(rows, timed, scopes=(ENCODER, WAVE) if opened.has_ctc else (ENCODER,))
    return TrialResult(
        opened,
        data,
        metric if data.labelled else "disagreement",
        times,
        sum(s.seconds for s in timed),
        environment=finish_record(environment),
        **found,
    )


def timed_speech(system: System, speech: Sequence[Speech]) -> list[Speech]:
    """Return a few utterances that are long enough, spread over the durations.

    Raises:
        ValueError: If all are too short for the encoder.
    """
    usable = []
    for one in spread_over_durations(speech, 4 * MAX_TIMED):
        try:
            system.batch([one])
            usable.append(one)
        except TooShortUttError:
            continue
    if not usable:
        raise ValueError(f"all of {len(speech)} utterances are too short for the encoder")
    mean = sum(s.seconds for s in usable) / len(usable)
    return spread_over_durations(usable, max(2, min(MAX_TIMED, int(TIMED_SECONDS / mean))))


@torch.inference_mode()
def find_ceiling(
    opened: OpenedModel, full: System, speech: Sequence[Speech], choice: Choice | None
) -> Ceiling:
    """Return what the gate of a choice could save; without one, a gate in the middle.

    Args:
        opened: The model.
        full: Its full depth.
        speech: To count on.
        choice: Tells the gate.
    """
    encoder, layers = full.encoder, opened.num_layers
    known = choice.trial.settings.gates_in_use if choice is not None else opened.usable
    layer = min(known or [max(1, layers // 2)])
    stem = lower = total = frames = blank = 0
    for one in speech:
        batch = full.batch([one])
        full.encode(batch)  # what is computed once is in no count
        stem += counted(partial(full.subsample, batch))[1]
        lower += counted(partial(_lower, full, batch, layer))[1]
        total += counted(partial(full.encode, batch))[1]
        encoded = full.encode(batch)
        best = encoded.argmax(full.model.ctc)[0, : int(encoded.lens[0])]
        frames, blank = frames + len(best), blank + int((best == BLANK).sum())
    assert len(encoder.encoders) == layers
    return Ceiling(
        layer, layers, stem / total, (lower - stem) / total, blank / frames, layer in opened.trained
    )


def time_rows(
    rows: dict[str, System], speech: Sequence[Speech], scopes: Sequence[str], repeats: int = REPEATS
) -> Times:
    """Time all rows in all scopes, interleaved.

    Args:
        rows: The systems by name.
        speech: A pass is all of it, one utterance at a time.
        scopes: `ENCODER`: features to encoder_out. `WAVE`: samples in memory to text.
        repeats: Passes.
    """
    inputs = []
    for one in speech:
        cases: dict[str, Callable[[], object]] = {}
        for name, system in rows.items():
            wave = system.speech2text.preprocess(one.utt_id, one.samples)
            if ENCODER in scopes:
                cases[f"{ENCODER}/{name}"] = partial(system.encode, system.batch([one]))
            if WAVE in scopes:
                cases[f"{WAVE}/{name}"] = partial(system.speech2text.recognize, [wave])
        inputs.append(cases)
    taken = time_interleaved(inputs, repeats)
    return {scope: {name: taken[f"{scope}/{name}"] for name in rows} for scope in scopes}


def _decode(
    opened: OpenedModel, settings: Sequence[Any], data: TrialData, log: Log
) -> list[Decoded]:
    """Decode with every setting; those of one context in one pass."""
    systems = [System(opened, how) for how in settings]
    groups = one_pass_groups(systems)
    found: dict[int, Decoded] = {}
    for number, group in enumerate(groups, 1):
        part, total = f"pass {number} of {len(groups)}", len(data.test.speech)
        decoded = decode(group, data.test, note_utterances(log, part, total))
        found |= zip(map(id, group), decoded, strict=True)
    return [found[id(system)] for system in systems]


def _lower(system: System, batch: Any, layer: int) -> None:
    state, _ = system.encoder.start(*batch, system.settings)
    advance(system.encoder, state, {}, system.model.ctc, layer)
