"""The trace of a batch: what its gates saw and which frames they let go on."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class GateTrace:
    """What one gate saw and decided.

    Attributes:
        layer_idx: 1-based layer after which the gate sits.
        keep_mask: (B, T) bool, True = the frame went on.
        blank_prob: (B, T) float32, p(blank); a frame that an earlier gate dropped keeps the
            value which that gate saw.
        speaker: (B, T) int64, the frame whose state each frame gets in the end; None = its own.
            See `RepeatGate`.
    """

    layer_idx: int
    keep_mask: torch.Tensor
    blank_prob: torch.Tensor
    speaker: torch.Tensor | None = None


@dataclass(frozen=True)
class SkipTrace:
    """Which frames of a batch skipped layers, in encoder frames.

    Attributes:
        valid_mask: (B, T) bool, True = real frame.
        gates: One GateTrace for each gate, from the lowest layer up; at least one.
    """

    valid_mask: torch.Tensor
    gates: tuple[GateTrace, ...]

    @property
    def keep_mask(self) -> torch.Tensor:
        """(B, T) bool, True = the frame went through every layer."""
        return self.gates[-1].keep_mask

    @property
    def spoken_mask(self) -> torch.Tensor:
        """(B, T) bool, True = the frame's output is that of a frame which ran every layer."""
        speaker = self.gates[-1].speaker
        return self.keep_mask if speaker is None else self.keep_mask.gather(1, speaker)

    def blank_prob(self) -> torch.Tensor:
        """Return p(blank) (B, T) float32 by the last gate that saw each frame (or its speaker)."""
        gate = self.gates[-1]
        return gate.blank_prob if gate.speaker is None else gate.blank_prob.gather(1, gate.speaker)

    def depth(self, num_layers: int) -> torch.Tensor:
        """Return how many layers each frame ran, (B, T) int64; 0 on padding."""
        depth = torch.full_like(self.keep_mask, num_layers, dtype=torch.long)
        for gate in reversed(self.gates):
            depth = depth.masked_fill(~gate.keep_mask, gate.layer_idx)
        return depth.masked_fill(~self.valid_mask, 0)

    def num_frames(self) -> int:
        """Return the number of real frames."""
        return int(self.valid_mask.sum())

    def num_skipped(self) -> int:
        """Return the number of real frames that skipped at least one layer."""
        return int((self.valid_mask & ~self.keep_mask).sum())

    def skip_ratio(self) -> float:
        """Return the share of real frames that skipped at least one layer."""
        return self.num_skipped() / max(1, self.num_frames())

    def utterance(self, row: int) -> SkipTrace:
        """Return the trace of one utterance, cut to its own length: (1, T_row)."""
        cut = (slice(row, row + 1), slice(0, int(self.valid_mask[row].sum())))
        gates = (
            GateTrace(
                g.layer_idx,
                g.keep_mask[cut],
                g.blank_prob[cut],
                None if g.speaker is None else g.speaker[cut],
            )
            for g in self.gates
        )
        return SkipTrace(self.valid_mask[cut], tuple(gates))
