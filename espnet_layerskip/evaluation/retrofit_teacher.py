"""The teacher's part of a retrofit, here or in many processes: audio to what is learnt from it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from espnet_layerskip.evaluation.open_model import OpenedModel, open_model
from espnet_layerskip.evaluation.retrofit_data import Corpus, encoder_input
from espnet_layerskip.parallel import Workers, map_chunks, similar_chunks
from espnet_layerskip.training.retrofit import Step
from espnet_layerskip.training.retrofit_loss import Taught, teach

JOB_SECONDS = 72000.0
"""So much audio is given to batch jobs at a time: what they find are files, all of it."""


class Teacher:
    """Teaches the batches of updates; can be pickled, and loads its model at the first of them.

    Args:
        model, model_file: As of `open_model`.
        gates: Layers of the student's gates.
        corpus: Where the audio is.
        augment: Apply the model's own SpecAugment.
        device: To run on.
        opened: The model, if it is loaded already.
    """

    def __init__(
        self,
        model: str,
        model_file: str | None,
        gates: Sequence[int],
        corpus: Corpus,
        augment: bool,
        device: str,
        opened: OpenedModel | None = None,
    ):
        self.model, self.model_file, self.gates = model, model_file, sorted(gates)
        self.corpus, self.augment, self.device = corpus, augment, device
        self._opened = opened

    def __getstate__(self) -> dict[str, Any]:
        """Pickle it without the loaded model."""
        return self.__dict__ | {"_opened": None}

    def __call__(self, steps: Sequence[Step]) -> Iterator[list[Taught]]:
        """Yield what the model says of the batch of each update; see `teach`.

        Raises:
            ValueError: If the model or audio cannot be used.
        """
        if self._opened is None:
            self._opened = open_model(self.model, self.model_file, self.gates)
        model = self._opened.model.to(self.device)
        load = encoder_input(self._opened.speech2text, self.corpus, self.augment, self.device)
        for step in steps:
            torch.manual_seed(step.draws()[0])  # of SpecAugment
            yield teach(model, self.gates[0], *load(step.batch))

    def lessons(self, steps: Sequence[Step], workers: Workers) -> Iterator[list[Taught]]:
        """Yield the same, run by workers, on the own device."""
        for part in parts(steps) if workers.command else [steps]:
            chunks = similar_chunks(part, [seconds(step) for step in part], workers)
            for taught in map_chunks(self, chunks, workers):
                yield [one.to(self.device) for one in taught]


def seconds(step: Step) -> float:
    """Return the seconds of audio in the batch of an update."""
    return sum(one.seconds for one in step.batch)


def parts(steps: Sequence[Step]) -> Iterator[Sequence[Step]]:
    """Cut updates into parts of not much more than `JOB_SECONDS` of audio."""
    start, total = 0, 0.0
    for end, step in enumerate(steps, 1):
        total += seconds(step)
        if total >= JOB_SECONDS or end == len(steps):
            yield steps[start:end]
            start, total = end, 0.0
