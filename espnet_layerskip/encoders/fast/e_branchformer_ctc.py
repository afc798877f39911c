"""The weights of OWSM-CTC's encoder in a form for inference; see parts.py, e_branchformer.py."""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as F

from espnet_layerskip.encoders.fast.attention import unsupported_attention
from espnet_layerskip.encoders.fast.e_branchformer import FastEBranchformerLayer
from espnet_layerskip.encoders.fast.parts import layer_norm
from espnet_layerskip.encoders.fast.precision import float_dtype, linear
from espnet_layerskip.method.frames import Frames


class CrossAttention:
    """Attention of ``norm(x)`` to the prompt, utterance by utterance.

    A prompt of one position has all the attention: nothing of the frames is needed then.
    """

    def __init__(self, norm: Any, module: Any, precision: str):
        self.norm, self.dtype, self.num_heads = layer_norm(norm), float_dtype(precision), module.h
        self.query = linear(module.linear_q.weight, module.linear_q.bias, precision)
        both = torch.cat((module.linear_k.weight, module.linear_v.weight))
        bias = torch.cat((module.linear_k.bias, module.linear_v.bias))
        self.key_value = linear(both, bias, precision)
        self.out = linear(module.linear_out.weight, module.linear_out.bias, precision)

    def __call__(
        self,
        x: torch.Tensor,
        counts: list[int],
        memory: torch.Tensor,
        memory_mask: torch.Tensor | None,
    ) -> torch.Tensor:
        """Return (N, D) of rows (N, D).

        Args:
            x: Active frames, utterance after utterance.
            counts: How many each utterance has.
            memory: (B, M, D).
            memory_mask: (B, 1, M) bool, True = may be attended; None = all.
        """
        batch, length, dim = memory.shape
        rows = memory.reshape(-1, dim).to(self.dtype)
        keys, values = self.key_value(rows).view(batch, length, 2, dim).unbind(2)
        if length == 1:
            spread = self.out(values[:, 0])
            return spread.repeat_interleave(torch.tensor(counts, device=x.device), dim=0)
        outs = []
        for i, query in enumerate(torch.split(self.query(self.norm(x)), counts)):
            q, k, v = (
                part.view(1, len(part), self.num_heads, -1).transpose(1, 2)
                for part in (query, keys[i], values[i])
            )
            mask = None if memory_mask is None else memory_mask[i][None]
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
            outs.append(out[0].transpose(0, 1).reshape(len(query), dim))
        return self.out(torch.cat(outs))


class FastEBranchformerCTCLayer(FastEBranchformerLayer):
    """One layer of OWSM-CTC's encoder.

    Args:
        layer: A layer for which `unsupported` returns None.
        precision: One of PRECISIONS.
    """

    memory: torch.Tensor | None = None
    memory_mask: torch.Tensor | None = None

    def __init__(self, layer: Any, precision: str = "float32"):
        super().__init__(layer, precision)
        self.cross = None
        if layer.cross_attn is not None:
            self.cross = CrossAttention(layer.norm_cross_attn, layer.cross_attn, precision)

    @staticmethod
    def unsupported(layer: Any) -> str | None:
        """Return why a layer has no fast form; None if it has one."""
        cross = layer.cross_attn
        return FastEBranchformerLayer.unsupported(layer) or (
            None if cross is None else unsupported_attention(cross)
        )

    def reading(
        self, memory: torch.Tensor, memory_mask: torch.Tensor | None
    ) -> FastEBranchformerCTCLayer:
        """Return the layer with the prompt of a call; see `CrossAttention`."""
        found = copy.copy(self)
        found.memory, found.memory_mask = memory, memory_mask
        return found

    def blocks(self, x: torch.Tensor, frames: Frames) -> torch.Tensor:
        """Return the active rows (N, D) before the last norm."""
        x = super().blocks(x, frames)
        if self.cross is None or self.memory is None:
            return x
        index = frames.index
        batch, length, _ = frames.shape
        counts = [length] * batch if index is None else index.keep_mask.sum(1).tolist()
        return x + self.cross(x, counts, self.memory, self.memory_mask)
