"""Conditions of a benchmark: inputs of some lengths, in batches of some sizes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from espnet_layerskip.evaluation.inputs import Speech, TestSet, join_utterances

# Where nothing else is asked for: this much audio of each length, in this many inputs.
AUDIO_SECONDS, MAX_INPUTS = 40.0, 8


@dataclass(frozen=True)
class Condition:
    """Inputs of one length, in batches of one size.

    Attributes:
        audio_seconds: Wanted duration of an input.
        batch_size: Inputs in a batch.
        groups: The batches.
    """

    audio_seconds: float
    batch_size: int
    groups: list[list[Speech]]

    def describe(self) -> dict[str, Any]:
        """Return what a row says of it."""
        speech = [s for group in self.groups for s in group]
        return {
            "audio_seconds": self.audio_seconds,
            "batch_size": self.batch_size,
            "num_inputs": len(speech),
            "measured_seconds": sum(s.seconds for s in speech) / len(speech),
        }


def make_conditions(
    data: TestSet, seconds: Sequence[float], batch_sizes: Sequence[int], num_inputs: int | None
) -> list[Condition]:
    """Join the test set's utterances to inputs; smaller batches are of the first of them.

    Args:
        data: The test set.
        seconds: Wanted durations.
        batch_sizes: Inputs in a batch.
        num_inputs: Different inputs of each duration, a multiple of each batch size; None = of
            about 40 s together and at most 8, rounded up to whole batches.

    Raises:
        ValueError: If the data has too few, or a batch size does not divide ``num_inputs``.
    """
    found = []
    for wanted in seconds:
        for size in batch_sizes:
            if num_inputs is not None and num_inputs % size:
                raise ValueError(
                    f"batch size {size} does not divide the {num_inputs} inputs: choose a "
                    "multiple of all batch sizes"
                )
            usual = max(1, min(MAX_INPUTS, int(AUDIO_SECONDS // wanted)))
            count = num_inputs or -(-usual // size) * size
            needed = num_inputs or size
            inputs = join_utterances(data.speech, data.utt2spk, wanted, needed, count)
            inputs = inputs[: len(inputs) // size * size]
            groups = [inputs[i : i + size] for i in range(0, len(inputs), size)]
            found.append(Condition(wanted, size, groups))
    return found
