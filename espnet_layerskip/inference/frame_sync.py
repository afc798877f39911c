"""A model and a frame-synchronous decoder: utterances in batches, long ones in segments."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch

from espnet_layerskip._compat import TooShortUttError
from espnet_layerskip.decoding.hypothesis import CTCDecoder, Hypothesis
from espnet_layerskip.inference.batches import by_length, check_batch_size, in_halves
from espnet_layerskip.inference.posteriors import (
    Clock,
    can_pad,
    encode,
    extract_features,
    num_layers,
    split,
)
from espnet_layerskip.inference.recognize import Recognized
from espnet_layerskip.inference.segments import Posteriors, Segmentation
from espnet_layerskip.inference.skip_count import SkipCount
from espnet_layerskip.method.settings import SkipSettings

Wave = np.ndarray | torch.Tensor

logger = logging.getLogger(__name__)


class FrameSynchronous:
    """Encodes and decodes. What is too short has an empty transcript, and a warning.

    Args:
        model: ESPnet ASR model in evaluation mode.
        decoder: For its CTC head.
        plan: How to cut long audio; None = never.
        prepare: Makes samples (N,) a tensor of the model's device and dtype.
    """

    def __init__(
        self,
        model: Any,
        decoder: CTCDecoder,
        plan: Segmentation | None,
        prepare: Callable[[Wave], torch.Tensor],
    ):
        self.model = model
        self.decoder = decoder
        self.plan = plan
        self.prepare = prepare

    @property
    def can_batch(self) -> bool:
        """False if an output depends on the padding of a batch, as that of a stock encoder does."""
        return can_pad(self.model)

    def utterances(
        self,
        speech: Sequence[Wave],
        names: Sequence[str],
        batch_size: int | None,
        settings: SkipSettings | None = None,
    ) -> list[Recognized]:
        """Decode utterances in batches of similar length.

        Args:
            speech: Samples (N_i,) of each.
            names: Of each, for warnings.
            batch_size: Utterances of a batch; None = all in one, and of a long one a segment.
            settings: See `encode`.
        """
        out = [Recognized([Hypothesis()])] * len(speech)
        feats = {}
        for i, (wave, name) in enumerate(zip(speech, names, strict=True)):
            if self.plan is not None and len(wave) > self.plan.longest_whole:
                samples = torch.as_tensor(wave).cpu().numpy()
                out[i] = self.blocks([samples], name, batch_size or 1, settings=settings)
                continue
            try:
                feats[i] = extract_features(self.model, self.prepare(wave), name)
            except TooShortUttError as e:
                _warn(name, e)
        indices = list(feats)
        size = max(1, len(feats)) if batch_size is None else batch_size
        lengths, layers = [len(feats[i]) for i in indices], num_layers(self.model)

        def decode(batch: list[int]) -> list[Recognized]:
            clock = Clock()
            encoded = encode(self.model, [feats[i] for i in batch], settings, clock)
            log_probs = encoded.log_softmax(self.model.ctc)
            hyps = self.decoder(log_probs, encoded.lens, encoded.keep_mask)
            parts, share = split(log_probs, encoded, layers), clock.seconds / len(batch)
            pairs = zip(parts, hyps, strict=True)
            return [Recognized(best, None, part.count(layers), share) for part, best in pairs]

        for places in by_length(lengths, size if self.can_batch else min(1, size)):
            batch = [indices[n] for n in places]
            found = in_halves(decode, batch, [len(wave) for wave in speech])
            for i, one in zip(batch, found, strict=True):
                out[i] = one
        return out

    def blocks(
        self,
        blocks: Iterable[np.ndarray],
        name: str,
        batch_size: int,
        preprocess: Callable[[np.ndarray], np.ndarray] | None = None,
        settings: SkipSettings | None = None,
    ) -> Recognized:
        """Decode one utterance of any length, segment by segment.

        Memory does not grow with its length, but for the transcript (greedy: also a label a
        frame). Features are normalised as in training; what is done by utterance
        (``utterance_mvn``) is done by segment.

        Args:
            blocks: Samples (N_i,), one after the other.
            name: Of the utterance, for the warning.
            batch_size: Segments to encode together.
            preprocess: What to do with the samples (N,) of each segment; None = nothing.
            settings: See `encode`.
        """
        if self.plan is None:
            whole = np.concatenate([np.zeros(0, np.float32), *blocks])
            whole = whole if preprocess is None else preprocess(whole)
            return self.utterances([whole], [name], 1, settings)[0]
        waves = (
            self.prepare(samples if preprocess is None else preprocess(samples))
            for samples in self.plan.cut(blocks)
        )
        clock, layers = Clock(), num_layers(self.model)
        size = check_batch_size(batch_size) if self.can_batch else 1
        parts = self._encoded(waves, size, settings, clock)
        stream, count = self.decoder.stream(), SkipCount()
        try:
            for part in self.plan.stitch(parts):
                stream.accept(part.log_probs, part.keep_mask)
                count += part.count(layers)
        except TooShortUttError as e:  # then it is all there is: others are longer than an overlap
            _warn(name, e)
        return Recognized(stream.finish(), None, count, clock.seconds)

    def _encoded(
        self,
        waves: Iterator[torch.Tensor],
        batch_size: int,
        settings: SkipSettings | None,
        clock: Clock,
    ) -> Iterator[Posteriors]:
        while batch := list(islice(waves, batch_size)):
            feats = [extract_features(self.model, wave) for wave in batch]
            encoded = encode(self.model, feats, settings, clock)
            log_probs = encoded.log_softmax(self.model.ctc)
            yield from split(log_probs, encoded, num_layers(self.model))


def _warn(name: str, error: TooShortUttError) -> None:
    logger.warning("%s %s: its transcript is empty", name, error)
