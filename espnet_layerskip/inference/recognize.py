"""Transcribe many utterances: batches by length, results in order, failures by name."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from espnet_layerskip.inference.audio import AudioBlocks, Utterance
from espnet_layerskip.inference.batches import by_length, check_batch_size
from espnet_layerskip.inference.skip_count import SkipCount

if TYPE_CHECKING:
    from espnet_layerskip.inference.speech2text import Speech2Text

logger = logging.getLogger(__name__)

# Utterances are read ahead and sorted by length within this many batches.
BATCHES_AHEAD = 8


@dataclass(frozen=True)
class Recognized:
    """What came of one utterance.

    Attributes:
        nbest: N-best list of (text, token, token_int, hypothesis); within the searches of
            hypotheses alone.
        intermediate: Tokens of intermediate CTC layers by layer, where the search gives any.
        skips: Its encoder frames, and what was skipped of them.
        encoder_seconds: Time in the encoder; of a batch an equal share.
    """

    nbest: list[Any]
    intermediate: dict[int, list[str]] | None = None
    skips: SkipCount = field(default_factory=SkipCount)
    encoder_seconds: float = 0.0

    def for_espnet(self) -> Any:
        """Return what ESPnet's class returns: ``nbest`` or ``(nbest, intermediate)``."""
        return self.nbest if self.intermediate is None else (self.nbest, self.intermediate)


@dataclass(frozen=True)
class Result:
    """What came of one utterance of a list.

    Attributes:
        utt_id: Its name.
        found: Its transcript and what was skipped; None if it failed.
        seconds: Length of its audio.
        error: Why it failed, one line; None if it did not.
    """

    utt_id: str
    found: Recognized | None = None
    seconds: float = 0.0
    error: str | None = None

    @property
    def nbest(self) -> list[Any]:
        """N-best list of (text, token, token_int, hypothesis); empty if it failed."""
        return [] if self.found is None else self.found.nbest

    @property
    def skips(self) -> SkipCount:
        """Its frames and skipped frames; none if it failed."""
        return SkipCount() if self.found is None else self.found.skips


def recognize(
    speech2text: Speech2Text,
    utterances: Sequence[Utterance],
    open_audio: Callable[[Utterance], AudioBlocks],
    batch_size: int = 1,
) -> Iterator[Result]:
    """Yield a result for each utterance, in the given order.

    So many utterances are read ahead as make eight batches, and those of similar length are
    encoded together. Long ones are read and decoded segment by segment. An utterance that
    cannot be read or decoded gives a result with ``error`` set, for the caller to report; the
    others are not affected, whatever batch it was in.

    Args:
        speech2text: The model.
        utterances: What to transcribe.
        open_audio: Gives the samples of an utterance at the model's rate, in blocks, or
            raises AudioError.
        batch_size: Utterances, or segments of a long one, to encode together.

    Raises:
        ValueError: If ``batch_size`` is less than 1.
    """
    ahead = batch_size * BATCHES_AHEAD if check_batch_size(batch_size) > 1 else 1
    for start in range(0, len(utterances), ahead):
        window = utterances[start : start + ahead]
        results: dict[str, Result] = {}
        waves: dict[str, np.ndarray] = {}
        for utt in window:
            try:
                audio = open_audio(utt)
                if audio.seconds > speech2text.longest_whole:
                    results[utt.utt_id] = _decode_long(speech2text, utt.utt_id, audio, batch_size)
                else:
                    waves[utt.utt_id] = speech2text.preprocess(utt.utt_id, audio.read())
            except Exception as e:  # whatever it is, it must not cost the other utterances
                logger.debug("traceback", exc_info=True)
                results[utt.utt_id] = Result(utt.utt_id, error=reason(e))
        names = list(waves)
        for batch in by_length([len(wave) for wave in waves.values()], batch_size):
            found = _decode(speech2text, {names[i]: waves[names[i]] for i in batch})
            results.update({r.utt_id: r for r in found})
        for utt in window:
            yield results[utt.utt_id]


def _decode_long(
    speech2text: Speech2Text, utt_id: str, audio: AudioBlocks, batch_size: int
) -> Result:
    num_samples = 0

    def counted() -> Iterator[np.ndarray]:
        nonlocal num_samples
        for block in audio:
            num_samples += len(block)
            yield block

    try:
        found = speech2text.recognize_blocks(
            counted(), utt_id, batch_size, partial(speech2text.preprocess, utt_id)
        )
    except Exception as e:  # as in _decode
        logger.debug("traceback", exc_info=True)
        return Result(utt_id, error=reason(e))
    return Result(utt_id, found, num_samples / speech2text.sample_rate)


def _decode(speech2text: Speech2Text, batch: dict[str, np.ndarray]) -> list[Result]:
    try:
        found = speech2text.recognize(list(batch.values()), list(batch))
    except Exception as e:  # whatever it is, it must not cost the other utterances
        if len(batch) == 1:
            [utt_id] = batch
            logger.debug("traceback", exc_info=True)
            return [Result(utt_id, error=reason(e))]
        logger.warning("a batch of %d failed (%s): one at a time now", len(batch), e)
        return [
            result
            for utt_id, wave in batch.items()
            for result in _decode(speech2text, {utt_id: wave})
        ]
    return [
        Result(utt_id, one, len(wave) / speech2text.sample_rate)
        for (utt_id, wave), one in zip(batch.items(), found, strict=True)
    ]


def reason(error: Exception) -> str:
    """Return an error in one line; with its type where it is not one that explains itself."""
    message = " ".join(f"{error}".split()) or type(error).__name__
    return message if isinstance(error, ValueError) else f"{type(error).__name__}: {message}"
