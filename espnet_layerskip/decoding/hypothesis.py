"""What a CTC decoder takes and gives."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

    # Decoders take either, and never import PyTorch themselves.
    Frames = torch.Tensor | NDArray[Any]


def to_numpy(values: Frames) -> NDArray[Any]:
    """Return a tensor, of whatever device, or an array as an array."""
    return values if isinstance(values, np.ndarray) else values.detach().cpu().numpy()


@dataclass(frozen=True)
class Word:
    """A word, when it was said, in seconds from the start of the audio, and how sure it is.

    Attributes:
        text: The word.
        start, end: In seconds.
        confidence: In [0, 1], see :func:`~.confidence.word_confidence`; None: not known. Words are
            compared without it.
    """

    text: str
    start: float
    end: float
    confidence: float | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Hypothesis:
    """One transcript of one utterance.

    Attributes:
        token_int: Token ids, without blank.
        token_frames: Encoder frame (0-based, full length before skipping) at which each
            token starts; empty if no CTC path of the frames gives these tokens.
        token_ends: Encoder frame after the last one of each token; as ``token_frames``.
        token_probs: Of each token, in [0, 1]; see :class:`~.confidence.WithConfidence`.
        score: Natural logarithm of what the decoder maximises; see each decoder.
        scores: Its parts by scorer, where the decoder tells them.
        yseq: The tokens as ESPnet's search has them, from sos to eos; empty: as ``token_int``.
        token: The tokens as strings, filled in by ``Speech2Text``.
        text: The detokenized transcript, filled in by ``Speech2Text``.
        token_times: Start of each token in seconds, filled in by ``Speech2Text``.
        words: The words with their times, filled in by ``Speech2Text``.
    """

    token_int: list[int] = field(default_factory=list)
    token_frames: list[int] = field(default_factory=list)
    token_ends: list[int] = field(default_factory=list)
    score: float = 0.0
    scores: dict[str, float] = field(default_factory=dict)
    yseq: list[int] = field(default_factory=list)
    token: list[str] = field(default_factory=list)
    text: str = ""
    token_times: list[float] = field(default_factory=list)
    words: list[Word] = field(default_factory=list)
    token_probs: list[float] = field(default_factory=list, compare=False)


class DecoderStream(Protocol):
    """The search over one utterance whose posteriors come in parts."""

    def accept(self, log_probs: Frames, keep_mask: Frames | None = None) -> None:
        """Take the next frames: (T, V) and (T,), as a batch of one has them in CTCDecoder."""

    def finish(self) -> list[Hypothesis]:
        """Return the hypotheses, best first, at least one."""


class CTCDecoder(Protocol):
    """A search over frame-synchronous CTC posteriors of full (not packed) length."""

    def __call__(
        self, log_probs: Frames, lens: Frames, keep_mask: Frames | None = None
    ) -> list[list[Hypothesis]]:
        """Decode a batch.

        Args:
            log_probs: Log-posteriors (B, T, V), float, blank at index 0; skipped frames
                hold the gate's blank decision. Like the others a tensor or an array.
            lens: Number of real frames of each utterance (B,), int64.
            keep_mask: (B, T) bool, False = the frame skipped layers, so that it may be
                dropped; None = no frame skipped.

        Returns:
            For each utterance its hypotheses, best first, at least one.
        """

    def stream(self) -> DecoderStream:
        """Start the search over an utterance that comes in parts.

        It gives what a call with the whole gives, but for a search that need not look back
        further than a part, and does not keep the posteriors.
        """
