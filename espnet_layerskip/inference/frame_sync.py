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
from espnet_layerskip.inference.batches import by_length, check_batch_size
from espnet_layerskip.inference.posteriors import (
    Posteriors,
    extract_features,
    kept_frames,
    log_posteriors,
)
from espnet_layerskip.inference.segments import Segmentation
from espnet_layerskip.inference.skip_count import SkipCount, count_skips
from espnet_layerskip.method.walk import LayerSkipMixin

Wave = np.ndarray | torch.Tensor
Decoded = tuple[list[Hypothesis], SkipCount]
"""Hypotheses of an utterance, best first, and its count of skipped frames."""

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
        # the output of a stock encoder depends on the padding of a batch
        self.can_batch = isinstance(model.encoder, LayerSkipMixin)

    def utterances(
        self, speech: Sequence[Wave], names: Sequence[str], batch_size: int | None
    ) -> list[Decoded]:
        """Decode utterances in batches of similar length.

        Args:
            speech: Samples (N_i,) of each.
            names: Of each, for warnings.
            batch_size: Utterances of a batch; None = all in one, and of a long one a segment.
        """
        out: list[Decoded] = [([Hypothesis()], SkipCount())] * len(speech)
        feats = {}
        for i, (wave, name) in enumerate(zip(speech, names, strict=True)):
            if self.plan is not None and len(wave) > self.plan.longest_whole:
                samples = torch.as_tensor(wave).cpu().numpy()
                out[i] = self.blocks([samples], name, batch_size or 1)
                continue
            try:
                feats[i] = extract_features(self.model, self.prepare(wave))
            except TooShortUttError as e:
                _warn(name, e)
        indices = list(feats)
        size = max(1, len(feats)) if batch_size is None else batch_size
        lengths = [len(feats[i]) for i in indices]
        for batch in by_length(lengths, size if self.can_batch else min(1, size)):
            log_probs, olens, keep_mask = self._encode([feats[indices[n]] for n in batch])
            hyps = self.decoder(log_probs, olens, keep_mask)
            for n, part, found in zip(
                batch, _parts(log_probs, olens, keep_mask), hyps, strict=True
            ):
                out[indices[n]] = found, self._count(part)
        return out

    def blocks(
        self,
        blocks: Iterable[np.ndarray],
        name: str,
        batch_size: int,
        preprocess: Callable[[np.ndarray], np.ndarray] | None = None,
    ) -> Decoded:
        """Decode one utterance of any length, segment by segment.

        Memory does not grow with its length, but for the transcript (greedy: also a label a
        frame). Features are normalised as in training; what is done by utterance
        (``utterance_mvn``) is done by segment.

        Args:
            blocks: Samples (N_i,), one after the other.
            name: Of the utterance, for the warning.
            batch_size: Segments to encode together.
            preprocess: What to do with the samples (N,) of each segment; None = nothing.
        """
        if self.plan is None:
            whole = np.concatenate([np.zeros(0, np.float32), *blocks])
            whole = whole if preprocess is None else preprocess(whole)
            return self.utterances([whole], [name], 1)[0]
        waves = (
            self.prepare(samples if preprocess is None else preprocess(samples))
            for samples in self.plan.cut(blocks)
        )
        parts = self._encoded(waves, check_batch_size(batch_size) if self.can_batch else 1)
        stream, count = self.decoder.stream(), SkipCount()
        try:
            for part in self.plan.stitch(parts):
                stream.accept(part.log_probs, part.keep_mask)
                count += self._count(part)
        except TooShortUttError as e:  # then it is all there is: others are longer than an overlap
            _warn(name, e)
        return stream.finish(), count

    def _encoded(self, waves: Iterator[torch.Tensor], batch_size: int) -> Iterator[Posteriors]:
        while batch := list(islice(waves, batch_size)):
            yield from _parts(*self._encode([extract_features(self.model, w) for w in batch]))

    def _encode(
        self, feats: Sequence[torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        log_probs, olens = log_posteriors(self.model, feats)
        return log_probs, olens, kept_frames(self.model)

    def _count(self, part: Posteriors) -> SkipCount:
        return count_skips(self.model.encoder, len(part), part.keep_mask)


def _parts(
    log_probs: torch.Tensor, olens: torch.Tensor, keep_mask: torch.Tensor | None
) -> Iterator[Posteriors]:
    for i, n in enumerate(olens.tolist()):
        yield Posteriors(log_probs[i, :n], None if keep_mask is None else keep_mask[i, :n])


def _warn(name: str, error: TooShortUttError) -> None:
    logger.warning("%s %s: its transcript is empty", name, error)
