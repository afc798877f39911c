"""What came of an utterance: its n-best list, and what was skipped."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from espnet_layerskip.inference.skip_count import SkipCount


@dataclass(frozen=True)
class Recognized:
    """What came of one utterance.

    Attributes:
        nbest: N-best list of (text, token, token_int, hypothesis).
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
