"""The function that ``transcribe`` runs, here or in many processes."""

from __future__ import annotations

import importlib.util
import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from espnet_layerskip.decoding.hypothesis import Word
from espnet_layerskip.inference.audio import AudioBlocks, Utterance
from espnet_layerskip.inference.quiet import log_ours, nothing_printed
from espnet_layerskip.inference.recognize import BATCHES_AHEAD, Result, recognize
from espnet_layerskip.inference.skip_count import SkipCount

DEVICE = re.compile(r"auto|cpu|cuda(:\d+)?")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Transcript:
    """What came of one utterance, small enough to be sent between processes.

    Attributes:
        utt_id: Its name.
        text: The transcript.
        words: Its words with the time in which they were said, if these were wanted.
        confidence: Mean of those of its words: the share of them that it expects to be right;
            None if it has no words, or none with a confidence.
        seconds: Length of its audio.
        encoder_seconds: Time in the encoder.
        skips: Its frames, and what was skipped of them.
        error: Why it failed, one line; None if it did not.
    """

    utt_id: str
    text: str = ""
    words: tuple[Word, ...] = ()
    confidence: float | None = None
    seconds: float = 0.0
    encoder_seconds: float = 0.0
    skips: SkipCount = SkipCount()  # noqa: RUF009  (it is frozen)
    error: str | None = None

    @classmethod
    def of(cls, result: Result, words: bool) -> Transcript:
        """Take what is needed of a result."""
        from espnet_layerskip.inference.times import spread_words

        found = result.found
        if found is None:
            return cls(result.utt_id, seconds=result.seconds, error=result.error)
        text, _, _, hypothesis = found.nbest[0]
        said = spread_words(hypothesis.words, result.seconds) if words else []
        sure = [word.confidence for word in said if word.confidence is not None]
        return cls(
            result.utt_id,
            text or "",
            tuple(said),
            sum(sure) / len(sure) if sure else None,
            result.seconds,
            found.encoder_seconds,
            found.skips,
        )


class Transcriber:
    """Transcribes lists of utterances; can be pickled, and loads its model at the first of them.

    Args:
        model, model_file, options: As of `espnet_layerskip.inference.speech2text.load_model`;
            ``device`` may be "auto": a GPU where there is one.
        module: Whose ``load_model`` makes a Speech2Text of these.
        batch_size: Utterances, or segments of a long one, to encode together.
        words: Give the words with their times too.
        pipes: Run paths that end with ``|`` as shell commands.
    """

    def __init__(
        self,
        model: str,
        model_file: str | None,
        options: Mapping[str, Any],
        batch_size: int = 1,
        words: bool = False,
        module: str = "espnet_layerskip.inference.speech2text",
        pipes: bool = False,
    ):
        self.model, self.model_file, self.options = model, model_file, dict(options)
        self.batch_size, self.words, self.module = batch_size, words, module
        self.pipes = pipes
        self.heard: Callable[[float], None] | None = None
        """Is called with the seconds of audio as they are read; does not travel."""
        self._loaded: Any = None

    def __getstate__(self) -> dict[str, Any]:
        """Pickle it without the loaded model."""
        return self.__dict__ | {"_loaded": None, "heard": None}

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
            with nothing_printed():
                loaded = self._load()
            if self.words and loaded.frame_seconds is None:
                raise ValueError(
                    "times of words are not known: the model's frontend does not say how long a "
                    "frame is (--times and all formats but text need it)"
                )
            self._loaded = loaded
        return self._loaded

    def _load(self) -> Any:
        options = dict(self.options)
        exported = self.module.startswith("espnet_layerskip.export")
        if "device" in options:
            options["device"] = (exported_device if exported else torch_device)(options["device"])
        try:
            load_model = importlib.import_module(self.module).load_model
            return load_model(self.model, self.model_file, **options)
        except RuntimeError as e:  # PyTorch's, of a device or of too little memory
            logger.debug("traceback", exc_info=True)
            why = next(iter(str(e).splitlines()), type(e).__name__)
            raise ValueError(f"{self.model} cannot be loaded: {why}") from e

    def __call__(self, utterances: Sequence[Utterance]) -> Iterator[Transcript]:
        """Yield what comes of each, in the given order; see `recognize`."""
        log_ours()
        speech2text = self.load()

        def open_audio(utt: Utterance) -> AudioBlocks:
            audio = AudioBlocks(
                utt, speech2text.sample_rate, resample=True, mix=True, pipes=self.pipes
            )
            audio.heard = self.heard
            return audio

        for result in recognize(speech2text, utterances, open_audio, self.batch_size):
            yield Transcript.of(result, self.words)


def torch_device(device: str) -> str:
    """Return the device for PyTorch; "auto" is cuda where it can be used.

    Raises:
        ValueError: If it cannot be used here.
    """
    if device == "cpu":
        return device
    import torch

    from espnet_layerskip.training.device import check_device

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    check_device(device)  # before ESPnet is imported
    return device


def exported_device(device: str) -> str:
    """Return the device for onnxruntime; "auto" is cuda where it was built for it."""
    if device != "auto" or importlib.util.find_spec("onnxruntime") is None:
        return device
    there = importlib.import_module("onnxruntime").get_available_providers()
    return "cuda" if "CUDAExecutionProvider" in there else "cpu"


def header_seconds(utt: Utterance) -> float:
    """Return the length of an utterance's audio as its header has it; 0 if it cannot be read."""
    try:
        return AudioBlocks(utt, None, mix=True).seconds
    except Exception:  # whatever it is, it is named when the utterance is transcribed
        return 0.0


def lost(utt: Utterance) -> Transcript:
    """Return what comes of an utterance whose process died each time."""
    return Transcript(utt.utt_id, error="its process died each time (killed, or out of memory)")
