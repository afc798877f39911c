"""What is timed: the rows of the three scopes, encoder, model and end to end."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import soundfile
import torch

from espnet_layerskip._compat import TooShortUttError
from espnet_layerskip.evaluation.experiment import Experiment
from espnet_layerskip.evaluation.inputs import Speech
from espnet_layerskip.evaluation.settings import OFF, SkipSettings
from espnet_layerskip.evaluation.systems import Skipped, System, skipped_of
from espnet_layerskip.evaluation.variants import FULL, INT8, ON, STOCK, Variant
from espnet_layerskip.inference.audio import AudioBlocks, Utterance, read_audio
from espnet_layerskip.inference.recognize import recognize

SCOPES = ("encoder", "model", "e2e")
GREEDY_ON, GREEDY_OFF = "ours_greedy_skip_on", "ours_greedy_skip_off"


@dataclass(frozen=True)
class Entry:
    """One row of a scope.

    Attributes:
        source: What has the weights and settings: rows of the same one have the same WER.
        prepare: Called before every timed run, and before ``transcribe``.
        bind: Gives what is timed for one batch of speech, as a function without arguments;
            raises ValueError where it cannot take such a batch.
        skipped: Runs that function and returns what its encoder skipped.
        transcribe: Text of one utterance, by the same weights and settings.
        settings: What it is, in one line.
        full_depth: See `Variant`.
        reference: See `Variant`.
        stem: As ``bind``, for the subsampling alone; None = it is not timed apart.
    """

    source: object
    prepare: Callable[[], object]
    bind: Callable[[Sequence[Speech]], Callable[[], Any]]
    skipped: Callable[[Callable[[], Any]], Skipped]
    transcribe: Callable[[Speech], str]
    settings: str
    full_depth: str = ""
    reference: str = ""
    stem: Callable[[Sequence[Speech]], Callable[[], Any]] | None = None


# By name; where there is no such row, why.
Entries = dict[str, Entry | str]
Bind = Callable[[System, Sequence[Speech]], Callable[[], Any]]


class WaveFiles:
    """Speech as files on a disk, each written once.

    Args:
        directory: Where to write.
    """

    def __init__(self, directory: Path):
        self.directory = directory
        self._written: dict[str, Utterance] = {}

    def __call__(self, speech: Speech) -> Utterance:
        """Return the utterance with the path of its file (16 bits a sample)."""
        if speech.utt_id not in self._written:
            path = self.directory / f"{len(self._written)}.wav"  # joined names can be too long
            soundfile.write(path, speech.samples, speech.rate, subtype="PCM_16")
            self._written[speech.utt_id] = Utterance(speech.utt_id, str(path))
        return self._written[speech.utt_id]


def encoder_entries(variants: Mapping[str, Variant]) -> Entries:
    """Features, computed before, to encoder_out: gates and packing included."""

    def bind(system: System, group: Sequence[Speech]) -> Callable[[], Any]:
        return partial(system.encode, system.batch(group))

    def stem(system: System, group: Sequence[Speech]) -> Callable[[], Any]:
        return partial(system.stem, system.batch(group))

    found: Entries = {}
    for name, variant in variants.items():
        entry = _entry(variant, bind)
        of_others = any(v.full_depth == name for v in variants.values())
        if isinstance(entry, Entry) and isinstance(variant.system, System) and of_others:
            entry = replace(entry, stem=partial(stem, variant.system))
        found[name] = entry
    return found


def model_entries(variants: Mapping[str, Variant]) -> Entries:
    """Samples in memory to log-posteriors: frontend, encoder and head."""

    def bind(system: System, group: Sequence[Speech]) -> Callable[[], Any]:
        return partial(system.posteriors, [torch.from_numpy(s.samples) for s in group])

    return {name: _entry(variants[name], bind) for name in _rivals(variants)}


def e2e_entries(
    variants: Mapping[str, Variant],
    decoders: Mapping[str, Experiment | str],
    settings: SkipSettings,
    stock: Mapping[str, Any],
    files: WaveFiles,
) -> Entries:
    """Wave files on a disk to text: our greedy search over all variants, and other searches.

    Args:
        variants: With greedy search.
        decoders: The experiment with another search of ours, by the search's name.
        settings: How those skip.
        stock: ESPnet's Speech2Text by row name, or why there is none.
        files: Writes the inputs.
    """

    def bind(system: System, group: Sequence[Speech]) -> Callable[[], Any]:
        return partial(_recognize, system, [files(speech) for speech in group])

    names = {n: f"{n}_greedy" for n in _rivals(variants) if n != STOCK}
    names |= {ON: GREEDY_ON, FULL: GREEDY_OFF, "": ""}
    rows = {
        names[n]: replace(v, full_depth=names[v.full_depth], reference=names[v.reference])
        for n, v in variants.items()
        if n in names
    }
    for search, experiment in decoders.items():
        on, off = (f"ours_{search}_skip_{switch}" for switch in ("on", "off"))
        for name, how, other in ((on, settings, off), (off, OFF, "")):
            system = experiment if isinstance(experiment, str) else System(experiment, how)
            rows[name] = Variant(system, other, other)
    found: Entries = {name: _entry(variant, bind) for name, variant in rows.items()}
    return found | {
        n: s if isinstance(s, str) else _stock_entry(s, files) for n, s in stock.items()
    }


def _rivals(variants: Mapping[str, Variant]) -> list[str]:
    """Return the names of all forms but those precisions that only the encoder's table has."""
    precisions = [n for n in variants if n.startswith(("bfloat16", "int8")) and n != INT8]
    return [name for name in variants if name not in precisions]


def _entry(variant: Variant, bind: Bind) -> Entry | str:
    system = variant.system
    if isinstance(system, str):
        return system

    def transcribe(speech: Speech) -> str:
        text, count = system.transcribe(speech)
        if count.num_frames == 0:
            raise ValueError(_too_short(speech))
        return text

    return Entry(
        system,
        system.prepare,
        partial(bind, system),
        partial(_skipped, system),
        transcribe,
        system.describe(),
        variant.full_depth,
        variant.reference,
    )


def _skipped(system: System, run: Callable[[], Any]) -> Skipped:
    """Run, and add up what every forward of the encoder skipped."""
    found: list[Skipped] = []

    def note(encoder: Any, args: Any, output: Any) -> None:
        found.append(skipped_of(encoder, int(output[1].sum())))

    hook = system.encoder.register_forward_hook(note)
    try:
        returned = run()
    finally:
        hook.remove()
    if not found:  # the encoder's scope calls its forward alone
        note(system.encoder, None, returned)
    return sum(found, Skipped())


def _recognize(system: System, utterances: Sequence[Utterance]) -> list[str]:
    """Transcribe files as the verb ``transcribe`` does."""
    speech2text = system.experiment.speech2text

    def open_audio(utterance: Utterance) -> AudioBlocks:
        return AudioBlocks(utterance, speech2text.sample_rate)

    results = list(recognize(speech2text, utterances, open_audio, len(utterances)))
    for result in results:
        if result.error is not None:
            raise ValueError(f"{result.utt_id} failed: {result.error}")
    return [result.nbest[0][0] or "" for result in results]


def _stock_entry(speech2text: Any, files: WaveFiles) -> Entry:
    """Return the row of an ESPnet Speech2Text."""

    def bind(group: Sequence[Speech]) -> Callable[[], Any]:
        batched = getattr(speech2text, "batch_decode", None)
        if len(group) > 1 and batched is None:
            raise ValueError("this version of ESPnet decodes one utterance at a time")
        utterances, rate = [files(speech) for speech in group], group[0].rate

        def run() -> Any:
            waves = [read_audio(utterance, rate) for utterance in utterances]
            return batched(waves) if batched and len(waves) > 1 else speech2text(waves[0])

        return run

    def transcribe(speech: Speech) -> str:
        try:
            found = speech2text(speech.samples)
        except TooShortUttError as e:
            raise ValueError(_too_short(speech)) from e
        nbest = found[0] if isinstance(found, tuple) else found
        return nbest[0][0] or ""

    model, search = speech2text.asr_model, speech2text.beam_search
    classes = ", ".join(type(part).__name__ for part in (model, model.encoder, model.ctc, search))
    settings = f"ESPnet's {type(speech2text).__name__}: {classes}, beam {search.beam_size}"
    if margin := getattr(search.scorers["ctc"], "window_margin", 0):  # ESPnet 202611's default
        settings += f", ctc_window_margin {margin}"
    return Entry(speech2text, lambda: None, bind, lambda run: Skipped(), transcribe, settings)


def _too_short(speech: Speech) -> str:
    return f"{speech.utt_id} is too short: remove it from the test set"
