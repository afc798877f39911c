"""The weights of an E-Branchformer encoder in a form for inference; see parts.py, branches.py.

The convolution that merges the branches has their residual connection folded in.
"""

from __future__ import annotations

from typing import Any

import torch

from espnet_layerskip.encoders.fast.attention import unsupported_attention
from espnet_layerskip.encoders.fast.branches import Branches
from espnet_layerskip.encoders.fast.depthwise import Depthwise
from espnet_layerskip.encoders.fast.layout import layout_of
from espnet_layerskip.encoders.fast.parts import (
    FastLayer,
    FeedForward,
    layer_norm,
    unsupported_feed_forward,
)
from espnet_layerskip.encoders.fast.precision import linear
from espnet_layerskip.method.frames import Frames


class FastEBranchformerLayer(FastLayer):
    """One ``EBranchformerEncoderLayer`` of ESPnet.

    Args:
        layer: A layer for which `unsupported` returns None.
        precision: One of PRECISIONS.
    """

    def __init__(self, layer: Any, precision: str = "float32"):
        super().__init__(precision)
        self.macaron = self.feed_forward = None
        scale = layer.ff_scale
        if (module := layer.feed_forward_macaron) is not None:
            self.macaron = FeedForward(layer.norm_ff_macaron, module, scale, precision)
        if (module := layer.feed_forward) is not None:
            self.feed_forward = FeedForward(layer.norm_ff, module, scale, precision)
        self.branches = Branches(layer, precision)
        out, second = layer.attn.linear_out, layer.cgmlp.channel_proj2
        self.attention_out = linear(out.weight, out.bias, precision)
        self.cgmlp_out = linear(second.weight, second.bias, precision)
        fusion = layer.depthwise_conv_fusion
        self.reach = fusion.padding[0]
        weight = fusion.weight.detach().clone()
        weight[:, 0, self.reach] += 1.0
        self.fusion = Depthwise(weight, fusion.bias, precision)
        self.merge = linear(layer.merge_proj.weight, layer.merge_proj.bias, precision)
        self.norm_final = layer_norm(layer.norm_final)

    @staticmethod
    def unsupported(layer: Any) -> str | None:
        """Return why a layer has no fast form; None if it has one."""
        return (
            unsupported_attention(layer.attn)
            or unsupported_feed_forward(layer.feed_forward)
            or unsupported_feed_forward(layer.feed_forward_macaron)
        )

    def run(self, x: torch.Tensor, frames: Frames) -> torch.Tensor:
        """Return the active rows (N, D), N > 0, after the layer."""
        return self.norm_final(self.blocks(x, frames))

    def blocks(self, x: torch.Tensor, frames: Frames) -> torch.Tensor:
        """Return the active rows (N, D) before the last norm."""
        layout = layout_of(frames, self.reach)
        if self.macaron is not None:
            x = self.macaron(x).add_(x)
        seen, gated = self.branches(x, frames, layout)
        both = torch.cat((self.attention_out(seen), self.cgmlp_out(gated)), dim=1)
        both = layout.convolve(self.fusion, both, wanted="active")
        x = self.merge(both).add_(x)
        if self.feed_forward is not None:
            x = self.feed_forward(x).add_(x)
        return x
