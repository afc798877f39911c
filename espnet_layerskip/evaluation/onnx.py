"""An exported model as a system of a benchmark: onnxruntime beside PyTorch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from espnet_layerskip.evaluation.inputs import Speech
from espnet_layerskip.evaluation.systems import texts_of
from espnet_layerskip.inference.audio import Utterance
from espnet_layerskip.inference.segments import Posteriors
from espnet_layerskip.inference.skip_count import SkipCount
from espnet_layerskip.method.settings import OFF


class OnnxSystem:
    """Greedy search over an exported model; runs with as many threads as PyTorch is set to.

    onnxruntime takes numbers below 1e-38 for zero here, as it does in ``transcribe``; PyTorch's
    rows do not.

    Args:
        folder: The export.
        full_depth: Leave the gates out.
    """

    def __init__(self, folder: Path, full_depth: bool):
        self.folder, self.full_depth = folder, full_depth
        self._opened: dict[int, Any] = {}

    @property
    def speech2text(self) -> Any:
        """The runtime for the present number of threads."""
        from espnet_layerskip.export.speech2text import load_model

        threads = torch.get_num_threads()
        if threads not in self._opened:
            how = {"segment_size": "off"}  # a long input is one piece of work for all
            if self.full_depth:
                how["blank_threshold"] = "off"
            with _denormals_are_zero():
                self._opened[threads] = load_model(self.folder, num_threads=threads, **how)
        return self._opened[threads]

    def describe(self) -> str:
        """Return the runtime, the encoder and how it skips, in one line."""
        import onnxruntime

        found = self.speech2text.description
        how = OFF if self.full_depth else found.settings
        return f"onnxruntime {onnxruntime.__version__}, {found.encoder}, {how.describe()}"

    def posteriors(self, waves: Sequence[torch.Tensor]) -> list[Posteriors]:
        """Return the log-posteriors of samples (N_i,)."""
        with _denormals_are_zero():
            found: list[Posteriors] = self.speech2text.encode([wave.numpy() for wave in waves])[1]
        return found

    def skips_of(self, speech: Sequence[Speech]) -> SkipCount:
        """Return what a batch of speech skips."""
        layers = self.speech2text.description.num_layers
        parts = self.posteriors([torch.from_numpy(one.samples) for one in speech])
        return sum((part.count(layers) for part in parts), SkipCount())

    def recognize(self, utterances: Sequence[Utterance]) -> list[str]:
        """Transcribe files in one batch, as the verb ``transcribe`` does.

        Raises:
            ValueError: If one of them fails.
        """
        with _denormals_are_zero():
            return texts_of(self.speech2text, utterances)

    def transcribe(self, speech: Speech) -> tuple[str, SkipCount, int]:
        """Return the transcript of one utterance and what was skipped; no FLOPs are counted."""
        with _denormals_are_zero():
            [found] = self.speech2text.recognize([speech.samples])
        return found.nbest[0][0] or "", found.skips, 0


@contextmanager
def _denormals_are_zero() -> Iterator[None]:
    """Inside the block, this thread takes numbers below 1e-38 for zero."""
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)
