"""How much of the encoder's work was skipped; counts can be added up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class SkipCount:
    """Encoder frames and layers that ran.

    Attributes:
        num_frames: Real encoder frames.
        num_skipped: Those that skipped at least one layer.
        layers_run: Layers run, summed over the frames.
        layers: Layers at full depth, summed over the frames.
    """

    num_frames: int = 0
    num_skipped: int = 0
    layers_run: int = 0
    layers: int = 0

    @staticmethod
    def of(depth: Any, num_layers: int) -> SkipCount:
        """Return the count of real frames that ran ``depth`` (T,) of ``num_layers`` layers.

        It is a tensor or an array.
        """
        frames = len(depth)
        skipped = int((depth < num_layers).sum())
        return SkipCount(frames, skipped, int(depth.sum()), frames * num_layers)

    def __add__(self, other: SkipCount) -> SkipCount:
        """Return the count of two parts together."""
        return SkipCount(
            self.num_frames + other.num_frames,
            self.num_skipped + other.num_skipped,
            self.layers_run + other.layers_run,
            self.layers + other.layers,
        )

    @property
    def ratio(self) -> float:
        """Share s of frames that skipped at least one layer."""
        return self.num_skipped / max(1, self.num_frames)

    @property
    def ceiling(self) -> float:
        """Share of the layers' work not done: s * (L - K) / L for one gate after layer K.

        With several gates it is the mean over the frames of the share of layers not run.
        It bounds the layers' linear work: the whole encoder also has its subsampling, and
        attention is quadratic in the frames, so that long inputs can save more.
        """
        return 1.0 - self.layers_run / self.layers if self.layers else 0.0
