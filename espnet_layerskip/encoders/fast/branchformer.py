"""The weights of a Branchformer encoder in a form for inference; see parts.py, branches.py.

The output projections of the branches and the one that merges them are one.
"""

from __future__ import annotations

from typing import Any

import torch

from espnet_layerskip.encoders.fast.attention import unsupported_attention
from espnet_layerskip.encoders.fast.branches import Branches
from espnet_layerskip.encoders.fast.layout import layout_of
from espnet_layerskip.encoders.fast.parts import FastLayer, layer_norm
from espnet_layerskip.encoders.fast.precision import linear
from espnet_layerskip.method.frames import Frames


class FastBranchformerLayer(FastLayer):
    """One ``BranchformerEncoderLayer`` of ESPnet.

    Args:
        layer: A layer for which `unsupported` returns None.
        precision: One of PRECISIONS.
    """

    def __init__(self, layer: Any, precision: str = "float32"):
        super().__init__(precision)
        self.branches = Branches(layer, precision)
        weight = layer.merge_proj.weight.detach()
        if layer.merge_method == "concat":
            by_branch = weight.chunk(2, dim=1)
        else:
            share = layer.cgmlp_weight
            by_branch = (1.0 - share) * weight, share * weight
        weights, bias = [], layer.merge_proj.bias.detach().double()
        outs = layer.attn.linear_out, layer.cgmlp.channel_proj2
        for part, out in zip(by_branch, outs, strict=True):
            weights.append(part.double() @ out.weight.double())
            bias = bias + part.double() @ out.bias.double()
        self.merge = linear(torch.cat(weights, dim=1).float(), bias.float(), precision)
        self.norm_final = layer_norm(layer.norm_final)

    @staticmethod
    def unsupported(layer: Any) -> str | None:
        """Return why a layer has no fast form; None if it has one."""
        if not layer.use_two_branches:
            return "a layer has one branch only"
        if layer.merge_method == "learned_ave":
            return "merge_method: learned_ave"
        return unsupported_attention(layer.attn)

    def run(self, x: torch.Tensor, frames: Frames) -> torch.Tensor:
        """Return the active rows (N, D), N > 0, after the layer."""
        branches = self.branches(x, frames, layout_of(frames))
        return self.norm_final(self.merge(torch.cat(branches, dim=1)).add_(x))
