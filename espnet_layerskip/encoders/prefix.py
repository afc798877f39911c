"""Positions in front of the audio's frames (language and task) that no gate may touch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from espnet_layerskip.encoders.stem import own_copy
from espnet_layerskip.method.frames import Encoded
from espnet_layerskip.method.gate import BlankGate
from espnet_layerskip.method.trace import GateTrace, SkipTrace


@dataclass(frozen=True)
class PrefixGate:
    """A gate that decides of the audio as if there were no prefix, and keeps that.

    Args:
        gate: The gate.
        num_prefix: Number of prefix positions.
    """

    gate: BlankGate
    num_prefix: int

    def look(self, ctc: Any, h: torch.Tensor, layer_idx: int) -> tuple[torch.Tensor, ...]:
        """As of the gate."""
        return self.gate.look(ctc, h, layer_idx)

    def decide(
        self,
        layer_idx: int,
        seen: tuple[torch.Tensor, ...],
        valid_mask: torch.Tensor,
        before: GateTrace | None,
    ) -> GateTrace:
        """As of the gate, for (B, P + T)."""
        p = self.num_prefix
        found = self.gate.decide(
            layer_idx,
            tuple(s[:, p:] for s in seen),
            valid_mask[:, p:],
            None if before is None else _audio(before, p),
        )
        own = torch.arange(p, device=valid_mask.device).expand(len(valid_mask), -1)
        speaker = found.speaker
        return GateTrace(
            layer_idx,
            torch.cat((valid_mask[:, :p], found.keep_mask), dim=1),
            torch.cat((seen[0][:, :p], found.blank_prob), dim=1),
            None if speaker is None else torch.cat((own, speaker + p), dim=1),
        )


def audio_part(encoded: Encoded, num_prefix: int) -> Encoded:
    """Return a result without its prefix positions."""
    p, trace = num_prefix, encoded.trace
    if trace is not None:
        trace = SkipTrace(trace.valid_mask[:, p:], tuple(_audio(gate, p) for gate in trace.gates))
    return Encoded(
        encoded.out[:, p:],
        encoded.lens - p,
        tuple((layer_idx, h[:, p:]) for layer_idx, h in encoded.intermediates),
        trace,
        encoded.exit_layer,
    )


def _audio(gate: GateTrace, p: int) -> GateTrace:
    speaker = None if gate.speaker is None else gate.speaker[:, p:] - p
    return GateTrace(gate.layer_idx, gate.keep_mask[:, p:], gate.blank_prob[:, p:], speaker)


class Prefixed(torch.nn.Module):
    """A positional encoding that first puts a prefix (B, P, D) in front of its input."""

    def __init__(self, pos_enc: Any, prefix: torch.Tensor):
        super().__init__()
        self.pos_enc, self.prefix = pos_enc, prefix

    def forward(self, x: torch.Tensor) -> Any:
        """Return what the encoding returns for (B, P + T, D)."""
        return self.pos_enc(torch.cat((self.prefix.to(x.dtype), x), dim=1))


def prefixed(embed: Any, fast: Any, prefix: torch.Tensor) -> tuple[Any, Any]:
    """Return copies of a subsampling and its fast form (or None) that put a prefix in front.

    ESPnet 202611 can do so itself, 202511 with conv2d8 only; the parameters are shared.

    Args:
        embed: Of ESPnet's subsampling classes.
        fast: Its `FastStem`, or None.
        prefix: (B, P, D).
    """
    embed = own_copy(embed)
    holder, name = embed, "pos_enc"
    if name not in embed._modules:  # 202511: it follows the projection
        holder, name = embed.out, "1"
    holder._modules[name] = Prefixed(holder._modules[name], prefix)
    if fast is not None:
        found = object.__new__(type(fast))
        found.__dict__.update(fast.__dict__, pos_enc=Prefixed(own_copy(fast.pos_enc), prefix))
        fast = found
    return embed, fast
