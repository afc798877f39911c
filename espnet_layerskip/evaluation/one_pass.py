"""Decode a set with many skipping settings at once, each layer as seldom as possible.

The layers up to the first gate are the same for all settings and run once an utterance. At a
gate the settings part by the frames which they keep: those that keep the same frames stay
together, so that the layers above run once for each different choice of frames.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch

from espnet_layerskip._compat import TooShortUttError
from espnet_layerskip.evaluation.decode import Decoded
from espnet_layerskip.evaluation.experiment import Experiment
from espnet_layerskip.evaluation.flops import count_flops
from espnet_layerskip.evaluation.inputs import Speech, TestSet
from espnet_layerskip.evaluation.settings import OFF, SkipSettings
from espnet_layerskip.evaluation.systems import Skipped, System, skipped_of
from espnet_layerskip.inference.posteriors import following_head
from espnet_layerskip.method.frames import GateTrace, LayerState
from espnet_layerskip.method.gate import BlankGate, GateView

logger = logging.getLogger(__name__)


@torch.no_grad()
def decode_with_each(
    experiment: Experiment,
    data: TestSet,
    settings: Sequence[SkipSettings],
    progress: Callable[[int], object] = lambda done: None,
    allow_too_short: bool = True,
) -> dict[SkipSettings, Decoded]:
    """Return for each setting what decoding the set utterance by utterance gives.

    Args:
        experiment: A layer-skipping one.
        data: What to decode.
        settings: Resolved settings of this experiment's encoder and context, no exit layer,
            each once.
        progress: Is called with the number of utterances done.
        allow_too_short: Give an utterance that is too short for the subsampling an empty
            transcript, as ``Speech2Text`` does.

    Raises:
        ValueError: If an utterance is too short, unless that is allowed.
    """
    system = System(experiment, OFF)
    system.warm_up(data.speech)
    hyps: dict[SkipSettings, dict[str, str]] = {one: {} for one in settings}
    skipped = dict.fromkeys(settings, Skipped())
    flops = dict.fromkeys(settings, 0)
    for done, speech in enumerate(data.speech, 1):
        for group, text, frames, cost in _decode(system, speech, settings):
            if frames.num_frames == 0 and not allow_too_short:
                raise ValueError(f"{speech.utt_id} is too short: remove it from the test set")
            for one in group:
                hyps[one][speech.utt_id] = text
                skipped[one] += frames
                flops[one] += cost
        progress(done)
    return {one: Decoded(hyps[one], skipped[one], flops[one], data.seconds) for one in settings}


def _decode(
    system: System, speech: Speech, settings: Sequence[SkipSettings]
) -> Iterator[tuple[Sequence[SkipSettings], str, Skipped, int]]:
    """Yield (settings, transcript, what was skipped, FLOPs) for each different outcome."""
    model, encoder, speech2text = system.model, system.encoder, system.experiment.speech2text
    try:
        batch = system.batch([speech])
    except TooShortUttError as e:
        logger.warning("%s %s: its transcript is empty", speech.utt_id, e)
        yield settings, "", Skipped(), 0
        return
    lengths: list[torch.Tensor] = []
    with encoder.stopped_at(encoder.gate_layer_idx[0]) as states:
        flops = count_flops(lambda: lengths.append(system.encode(batch)[1]))
    [olens], [state] = lengths, states
    for group, end, cost in _branches(encoder, model.ctc, state, settings, flops):
        out = encoder.output(end)
        with following_head(model):
            [[best, *_]] = speech2text.ctc_decoder(model.ctc.log_softmax(out), olens)
        skipped = skipped_of(encoder, int(olens.sum()))
        yield group, speech2text.entry(best)[0] or "", skipped, cost


def _branches(
    encoder: Any, ctc: Any, state: LayerState, settings: Sequence[SkipSettings], flops: int
) -> Iterator[tuple[Sequence[SkipSettings], LayerState, int]]:
    """Go on from a gate; yield (settings, last state, FLOPs) for each different way to the top."""
    stop = next((k for k in encoder.gate_layer_idx if k > state.layer_idx), None)
    for trace, group, gate_flops in _decisions(encoder, ctc, state, settings):
        branch = state.fork()
        if trace is not None:
            branch.drop(trace)
        cost = flops + gate_flops
        cost += count_flops(partial(encoder.run_from, branch, {}, ctc, stop))
        if stop is None:
            yield group, branch, cost
        else:
            yield from _branches(encoder, ctc, branch, group, cost)


def _decisions(
    encoder: Any, ctc: Any, state: LayerState, settings: Sequence[SkipSettings]
) -> list[tuple[GateTrace | None, list[SkipSettings], int]]:
    """Part settings by what they decide at the state's gate; None = it does not decide."""
    views: dict[bool, tuple[GateView, int]] = {}
    found: dict[bytes | None, tuple[GateTrace | None, list[SkipSettings], int]] = {}
    for one in settings:
        if one.full_depth or state.layer_idx not in (one.gates or encoder.gate_layer_idx):
            found.setdefault(None, (None, [], 0))[1].append(one)
            continue
        gate = encoder.gate(one.threshold, one.extension, one.repeats)
        if gate.drops_repeats not in views:
            views[gate.drops_repeats] = _view(encoder, gate, state, ctc)
        view, flops = views[gate.drops_repeats]
        trace = encoder.decide(gate, state, view)
        key = trace.keep_mask.cpu().numpy().tobytes() + bytes([gate.drops_repeats])
        if trace.speaker is not None:
            key += trace.speaker.cpu().numpy().tobytes()
        found.setdefault(key, (trace, [], flops))[1].append(one)
    return list(found.values())


def _view(encoder: Any, gate: BlankGate, state: LayerState, ctc: Any) -> tuple[GateView, int]:
    """Return what the gate sees and the FLOPs of it."""
    views: list[GateView] = []
    flops = count_flops(lambda: views.append(encoder.view(gate, state, ctc)))
    return views[0], flops
