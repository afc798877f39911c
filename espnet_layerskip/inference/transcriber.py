"""The function that ``transcribe`` runs, here or in many processes."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from espnet_layerskip.inference.audio import AudioBlocks, AudioError, Utterance
from espnet_layerskip.inference.recognize import BATCHES_AHEAD, Result, recognize
from espnet_layerskip.inference.skip_count import SkipCount


@dataclass(frozen=True)
class Transcript:
    """What came of one utterance, small enough to be sent between processes.

    Attributes:
        utt_id: Its name.
        text: The transcript.
        ctm: Its words as lines of a CTM file, if these were wanted.
        seconds: Length of its audio.
        encoder_seconds: Time in the encoder.
        skips: Its frames, and what was skipped of them.
        error: Why it failed, one line; None if it did not.
    """

    utt_id: str
    text: str = ""
    ctm: tuple[str, ...] = ()
    seconds: float = 0.0
    encoder_seconds: float = 0.0
    skips: SkipCount = SkipCount()  # noqa: RUF009  (it is frozen)
    error: str | None = None

    @classmethod
    def of(cls, result: Result, words: bool) -> Transcript:
        """Take what is needed of a result."""
        from espnet_layerskip.inference.times import ctm_lines

        found = result.found
        if found is None:
            return cls(result.utt_id, seconds=result.seconds, error=result.error)
        text, _, _, hypothesis = found.nbest[0]
        ctm = tuple(ctm_lines(result.utt_id, hypothesis.words)) if words else ()
        seconds = (result.seconds, found.encoder_seconds)
        return cls(result.utt_id, text or "", ctm, *seconds, found.skips)


class Transcriber:
    """Transcribes lists of utterances; can be pickled, and loads its model at the first of them.

    Args:
        model, model_file, options: As of `espnet_layerskip.inference.speech2text.load_model`.
        module: Whose ``load_model`` makes a Speech2Text of these.
        batch_size: Utterances, or segments of a long one, to encode together.
        words: Give the words with their times too.
    """

    def __init__(
        self,
        model: str,
        model_file: str | None,
        options: Mapping[str, Any],
        batch_size: int = 1,
        words: bool = False,
        module: str = "espnet_layerskip.inference.speech2text",
    ):
        self.model, self.model_file, self.options = model, model_file, dict(options)
        self.batch_size, self.words, self.module = batch_size, words, module
        self._loaded: Any = None

    def __getstate__(self) -> dict[str, Any]:
        """Pickle it without the loaded model."""
        return self.__dict__ | {"_loaded": None}

    @property
    def batches_of(self) -> int:
        """Batches are formed within so many consecutive utterances."""
        return self.batch_size * BATCHES_AHEAD if self.batch_size > 1 else 1

    def load(self) -> Any:
        """Return the model, a Speech2Text, loaded if need be.

        Raises:
            ValueError: If it cannot be used, or does not say when its words were spoken.
        """
        if self._loaded is None:
            load_model = import_module(self.module).load_model
            loaded = load_model(self.model, self.model_file, **self.options)
            if self.words and loaded.frame_seconds is None:
                raise ValueError("--times: the model's frontend does not say how long a frame is")
            self._loaded = loaded
        return self._loaded

    def __call__(self, utterances: Sequence[Utterance]) -> Iterator[Transcript]:
        """Yield what comes of each, in the given order; see `recognize`."""
        logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
        speech2text = self.load()

        def open_audio(utt: Utterance) -> AudioBlocks:
            return AudioBlocks(utt, speech2text.sample_rate, resample=True, mix=True)

        for result in recognize(speech2text, utterances, open_audio, self.batch_size):
            yield Transcript.of(result, self.words)


def header_seconds(utt: Utterance) -> float:
    """Return the length of an utterance's audio as its header has it; 0 if it cannot be read."""
    try:
        return AudioBlocks(utt, None, mix=True).seconds
    except AudioError:
        return 0.0


def lost(utt: Utterance) -> Transcript:
    """Return what comes of an utterance whose process died each time."""
    return Transcript(utt.utt_id, error="its process died each time (killed, or out of memory)")
