"""What a CTC decoder takes and gives."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import torch


@dataclass(frozen=True)
class Hypothesis:
    """One transcript of one utterance.

    Attributes:
        token_int: Token ids, without blank.
        token_frames: Encoder frame (0-based, full length before skipping) at which each
            token starts; times hop length, subsampling and 1 / fs it is a time in seconds.
        score: Log-probability that the decoder gives, natural logarithm.
        token: The tokens as strings, filled in by ``Speech2Text``.
        text: The detokenized transcript, filled in by ``Speech2Text``.
    """

    token_int: list[int] = field(default_factory=list)
    token_frames: list[int] = field(default_factory=list)
    score: float = 0.0
    token: list[str] = field(default_factory=list)
    text: str = ""


class CTCDecoder(Protocol):
    """A search over frame-synchronous CTC posteriors of full (not packed) length."""

    def __call__(self, log_probs: torch.Tensor, lens: torch.Tensor) -> list[list[Hypothesis]]:
        """Decode a batch.

        Args:
            log_probs: Log-posteriors (B, T, V), float, blank at index 0; skipped frames
                hold the gate's blank decision.
            lens: Number of real frames of each utterance (B,), int64.

        Returns:
            For each utterance its hypotheses, best first, at least one.
        """
