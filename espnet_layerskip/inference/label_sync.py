"""ESPnet's label-synchronous search over utterances: in batches where that changes nothing."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Sequence
from typing import Any

import torch

from espnet_layerskip._compat import TooShortUttError, inference_module
from espnet_layerskip.decoding.hypothesis import Hypothesis
from espnet_layerskip.inference import espnet_search
from espnet_layerskip.inference.batches import by_length, in_halves
from espnet_layerskip.inference.frame_sync import Wave
from espnet_layerskip.inference.posteriors import (
    Clock,
    can_pad,
    encode,
    encode_whole,
    extract_features,
    has_own_encode,
    num_layers,
)
from espnet_layerskip.inference.recognize import Recognized
from espnet_layerskip.inference.skip_count import SkipCount
from espnet_layerskip.method.frames import Encoded, join
from espnet_layerskip.method.settings import SkipSettings

logger = logging.getLogger(__name__)
_TIMING = logging.getLogger(inference_module().__name__)  # ESPnet's calculate_rtf.py reads it

_TOLD: weakref.WeakSet[Any] = weakref.WeakSet()


def search_utterances(
    speech2text: Any,
    speech: Sequence[Wave],
    names: Sequence[str],
    batch_size: int | None,
    settings: SkipSettings | None,
) -> list[Recognized]:
    """Search utterances on posteriors that know what was skipped.

    What is too short has an empty transcript, and a warning. A batch that does not fit in the
    memory is decoded in halves, as ESPnet 202611 does.

    Args:
        speech2text: Ours, with ESPnet's search.
        speech: Samples (N_i,) of each.
        names: Of each, for warnings and errors.
        batch_size: Utterances of a batch; None = all in one. One where the search takes one at a
            time (see :func:`~.espnet_search.can_batch`).
        settings: See :func:`~.posteriors.encode`.

    Raises:
        ValueError: For audio that is too long for it.
        RuntimeError: If an utterance does not fit in the memory on its own; says which.
    """
    model = speech2text.asr_model
    layers, own = num_layers(model), has_own_encode(model)
    lengths = [len(wave) for wave in speech]
    out = [Recognized([Hypothesis()])] * len(speech)
    inputs: dict[int, torch.Tensor] = {}  # features, or samples for a model that takes these
    for i, (wave, name) in enumerate(zip(speech, names, strict=True)):
        if lengths[i] > speech2text.longest_whole * speech2text.sample_rate:
            raise ValueError(f"{name} {espnet_search.TOO_LONG}")
        _TIMING.info("speech length: %d", lengths[i])
        samples = speech2text.on_device(wave)
        try:
            inputs[i] = samples if own else extract_features(model, samples, name)
        except TooShortUttError as e:
            logger.warning("%s %s: its transcript is empty", name, e)

    def encoded(batch: list[int], clock: Clock) -> Encoded:
        given = [inputs[i] for i in batch]
        if own:
            return encode_whole(model, given, clock)
        if can_pad(model):
            return encode(model, given, settings, clock, True)
        return join([encode(model, [one], settings, clock, True) for one in given])

    def decode(batch: list[int]) -> list[Recognized]:
        clock = Clock()
        states = encoded(batch, clock)
        depth, share = states.depth(layers), clock.seconds / len(batch)
        found = espnet_search.search(speech2text, states, speech2text.drop_threshold)
        return [
            Recognized(hyps, tokens, SkipCount.of(row[:n], layers), share)
            for (hyps, tokens), row, n in zip(found, depth, states.lens.tolist(), strict=True)
        ]

    order, size = list(inputs), batch_size or max(1, len(inputs))
    if size > 1 and not espnet_search.can_batch(speech2text):
        size = 1
        if speech2text not in _TOLD:
            _TOLD.add(speech2text)
            name = type(speech2text.beam_search).__name__
            logger.warning("%s here takes no batches: utterances are decoded one at a time", name)
    for places in by_length([len(inputs[i]) for i in order], size):
        batch = [order[n] for n in reversed(places)]  # the longest first, for packed sequences
        for i, one in zip(batch, in_halves(decode, batch, lengths), strict=True):
            out[i] = one
    return out
