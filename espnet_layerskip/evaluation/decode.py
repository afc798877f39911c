"""The decoder of test sets: transcripts, skipped frames and FLOPs of one system, or of many.

Systems that differ only in how they skip are decoded in one pass. The layers up to the first
gate are the same for all and run once an utterance. At a gate the settings part by the frames
which they keep: those that keep the same frames stay together, so that the layers above run once
for each different choice of frames.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import torch

from espnet_layerskip._compat import TooShortUttError
from espnet_layerskip.evaluation.flops import counted
from espnet_layerskip.evaluation.inputs import Speech, TestSet
from espnet_layerskip.evaluation.systems import System
from espnet_layerskip.files import some as some_of
from espnet_layerskip.inference.skip_count import SkipCount
from espnet_layerskip.method.frames import Encoded, LayerState
from espnet_layerskip.method.settings import can_skip
from espnet_layerskip.method.trace import GateTrace
from espnet_layerskip.method.walk import advance, decide, look

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Decoded:
    """A decoded test set, utterance by utterance.

    Attributes:
        hyps: Transcript of each utterance.
        skipped: What was skipped, over the whole set.
        encoder_flops: FLOPs of the encoder, over the whole set; 0 = not counted.
        too_short: Names of utterances that are too short for the encoder: their transcript is
            empty.
    """

    hyps: dict[str, str]
    skipped: SkipCount
    encoder_flops: int
    too_short: list[str] = field(default_factory=list)


def count_too_short(names: Collection[str]) -> str:
    """Return in words how utterances count that are too short; "" = there are none."""
    if not names:
        return ""
    return (
        f"{len(names)} utterance(s) too short for the encoder, counted with an empty transcript: "
        f"{some_of(names, 3)}"
    )


class Transcriber(Protocol):
    """A system, ours or ESPnet's."""

    def transcribe(self, speech: Speech) -> tuple[str, SkipCount, int]:
        """Return text, what was skipped, and FLOPs of the encoder (0 = not counted)."""


def one_pass_groups(systems: Iterable[System]) -> list[list[System]]:
    """Return the systems in groups that can be decoded in one pass."""
    groups: dict[Hashable, list[System]] = {}
    for system in systems:
        lower: Hashable = id(system)
        if can_skip(system.encoder):
            lower = id(system.encoder.encoders), system.settings.skip_context
        groups.setdefault(lower, []).append(system)
    return list(groups.values())


@torch.no_grad()
def decode(
    systems: Sequence[Transcriber],
    data: TestSet,
    progress: Callable[[int], object] = lambda done: None,
) -> list[Decoded]:
    """Decode a test set, utterance by utterance, with one system or a group of them in one pass.

    An utterance that is too short for the subsampling gets an empty transcript, as by
    ``Speech2Text``.

    Args:
        systems: One, or a group of `one_pass_groups`.
        data: What to decode.
        progress: Is called with the number of utterances done.
    """
    if isinstance(systems[0], System):
        with suppress(TooShortUttError):  # what is computed once is in no count
            systems[0].skips_of([max(data.speech, key=lambda s: s.samples.size)])
    hyps: dict[int, dict[str, str]] = {id(system): {} for system in systems}
    skipped = dict.fromkeys(hyps, SkipCount())
    flops = dict.fromkeys(hyps, 0)
    too_short = []
    for done, speech in enumerate(data.speech, 1):
        try:
            outcomes = list(_outcomes(systems, speech))
        except TooShortUttError as e:
            too_short.append(speech.utt_id)
            logger.warning("%s %s: its transcript is empty", speech.utt_id, e)
            outcomes = [(systems, "", SkipCount(), 0)]
        for some, text, count, cost in outcomes:
            for system in some:
                hyps[id(system)][speech.utt_id] = text
                skipped[id(system)] += count
                flops[id(system)] += cost
        progress(done)
    return [Decoded(hyps[n], skipped[n], flops[n], too_short) for n in map(id, systems)]


def _outcomes(
    systems: Sequence[Any], speech: Speech
) -> Iterator[tuple[Sequence[Any], str, SkipCount, int]]:
    """Yield (systems, transcript, what was skipped, FLOPs) for each different outcome."""
    first = systems[0]
    if len(systems) == 1:
        yield systems, *first.transcribe(speech)
        return
    encoder, ctc, batch = first.encoder, first.model.ctc, first.batch([speech])
    start = partial(encoder.start, *batch, first.settings)
    (state, olens), below = counted(start)
    flops = below + counted(lambda: advance(encoder, state, {}, ctc, encoder.gate_layer_idx[0]))[1]
    for some, end, cost in _branches(state, systems, flops):
        encoded: Encoded = encoder.finish(end, olens, some[0].settings)
        yield some, first.text(encoded), first.skips(encoded), cost


def _branches(
    state: LayerState, systems: Sequence[System], flops: int
) -> Iterator[tuple[Sequence[System], LayerState, int]]:
    """Go on from a gate; yield (systems, last state, FLOPs) for each different way to the top."""
    leaving = [s for s in systems if s.settings.exit_layer == state.layer_idx]
    if leaving:
        yield leaving, state, flops
    staying = [s for s in systems if s not in leaving]
    encoder, ctc = systems[0].encoder, systems[0].model.ctc
    stop = next((k for k in encoder.gate_layer_idx if k > state.layer_idx), None)
    for trace, group, cost in _decisions(state, staying):
        branch = state.fork()
        if trace is not None:
            branch.drop(trace)
        _, above = counted(partial(advance, encoder, branch, {}, ctc, stop))
        total = flops + cost + above
        if stop is None:
            yield group, branch, total
        else:
            yield from _branches(branch, group, total)


def _decisions(
    state: LayerState, systems: Sequence[System]
) -> list[tuple[GateTrace | None, list[System], int]]:
    """Part systems by what they decide at the state's gate; None = it does not decide."""
    views: dict[type, tuple[tuple[torch.Tensor, ...], int]] = {}
    found: dict[Hashable, tuple[GateTrace | None, list[System], int]] = {}
    for system in systems:
        gate = system.encoder.gates(system.settings).get(state.layer_idx)
        if gate is None:
            found.setdefault(None, (None, [], 0))[1].append(system)
            continue
        kind = type(gate)  # gates of one kind see the same
        if kind not in views:
            views[kind] = counted(partial(look, system.encoder, gate, state, system.model.ctc))
        seen, flops = views[kind]
        trace = decide(gate, state, seen)
        speaker = b"" if trace.speaker is None else trace.speaker.cpu().numpy().tobytes()
        key = kind, trace.keep_mask.cpu().numpy().tobytes(), speaker
        found.setdefault(key, (trace, [], flops))[1].append(system)
    return list(found.values())
