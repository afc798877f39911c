"""The weights of a Transformer encoder in a form for inference; see parts.py."""

from __future__ import annotations

from typing import Any

import torch

from espnet_layerskip.encoders.fast.attention import Attention, unsupported_attention
from espnet_layerskip.encoders.fast.layout import layout_of
from espnet_layerskip.encoders.fast.parts import (
    FastLayer,
    FeedForward,
    unsupported_feed_forward,
)
from espnet_layerskip.method.frames import Frames


class FastTransformerLayer(FastLayer):
    """One ``EncoderLayer`` of ESPnet's Transformer.

    Args:
        layer: A layer for which `unsupported` returns None.
        precision: One of PRECISIONS.
    """

    def __init__(self, layer: Any, precision: str = "float32"):
        super().__init__(precision)
        self.attention = Attention(layer.norm1, layer.self_attn, precision)
        self.feed_forward = FeedForward(layer.norm2, layer.feed_forward, 1.0, precision)

    @staticmethod
    def unsupported(layer: Any) -> str | None:
        """Return why a layer has no fast form; None if it has one."""
        if not layer.normalize_before:
            return "normalize_before: false"
        if layer.concat_after:
            return "concat_after: true"
        return unsupported_attention(layer.self_attn) or unsupported_feed_forward(
            layer.feed_forward
        )

    def run(self, x: torch.Tensor, frames: Frames) -> torch.Tensor:
        """Return the active rows (N, D), N > 0, after the layer."""
        x = self.attention(x, frames, layout_of(frames)).add_(x)
        return self.feed_forward(x).add_(x)
