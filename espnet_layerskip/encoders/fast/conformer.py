"""The weights of a Conformer encoder in a form for inference; see parts.py.

BatchNorm is folded into the depthwise convolution, residual scales into the feed-forward's output.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from espnet_layerskip._compat import ConvolutionModule
from espnet_layerskip.encoders.fast.attention import Attention, unsupported_attention
from espnet_layerskip.encoders.fast.depthwise import Depthwise
from espnet_layerskip.encoders.fast.layout import Layout, layout_of
from espnet_layerskip.encoders.fast.parts import (
    FastLayer,
    FeedForward,
    activation,
    folded,
    layer_norm,
    plain_norm,
    unsupported_feed_forward,
)
from espnet_layerskip.encoders.fast.precision import Op, linear
from espnet_layerskip.method.frames import Frames


class Convolution:
    """``conv_module(norm(x))`` with its BatchNorm folded into the depthwise convolution."""

    def __init__(self, norm: Any, module: Any, precision: str):
        self.norm, self.activation = plain_norm(norm), activation(module.activation)
        conv1, conv, conv2 = module.pointwise_conv1, module.depthwise_conv, module.pointwise_conv2
        self.pointwise_1 = linear(*folded(norm, conv1.weight[..., 0], conv1.bias), precision)
        self.pointwise_2 = linear(conv2.weight[..., 0], conv2.bias, precision)
        batch_norm = module.norm
        gain = batch_norm.weight * (batch_norm.running_var + batch_norm.eps).rsqrt()
        bias = batch_norm.bias + gain * (conv.bias - batch_norm.running_mean)
        weight = gain[:, None, None] * conv.weight
        self.depthwise = Depthwise(weight, bias, precision)

    def __call__(self, x: torch.Tensor, frames: Frames, layout: Layout) -> torch.Tensor:
        """Return (N, D) of rows (N, D)."""
        rows, skipped = F.glu(self.pointwise_1(self.norm(x))), None
        if layout.over_frozen:
            frozen = layout.skipped(self.norm, frames, x.dtype)
            skipped = F.glu(self.pointwise_1(frozen))
        return self.pointwise_2(self.activation(layout.convolve(self.depthwise, rows, skipped)))


class FastConformerLayer(FastLayer):
    """One ``EncoderLayer`` of ESPnet's Conformer.

    Args:
        layer: A layer for which `unsupported` returns None.
        precision: One of PRECISIONS.
    """

    def __init__(self, layer: Any, precision: str = "float32"):
        super().__init__(precision)
        self.macaron = self.conv = None
        if layer.feed_forward_macaron is not None:
            self.macaron = FeedForward(
                layer.norm_ff_macaron, layer.feed_forward_macaron, layer.ff_scale, precision
            )
        self.attention = Attention(layer.norm_mha, layer.self_attn, precision)
        self.norm_final: Op | None = None
        if layer.conv_module is not None:
            self.conv = Convolution(layer.norm_conv, layer.conv_module, precision)
            self.norm_final = layer_norm(layer.norm_final)
        self.feed_forward = FeedForward(
            layer.norm_ff, layer.feed_forward, layer.ff_scale, precision
        )

    @staticmethod
    def unsupported(layer: Any) -> str | None:
        """Return why a layer has no fast form; None if it has one."""
        if not layer.normalize_before:
            return "normalize_before: false"
        if layer.concat_after:
            return "concat_after: true"
        conv = layer.conv_module
        if conv is not None and type(conv) is not ConvolutionModule:
            return f"the convolution module is {type(conv).__name__}"
        return (
            unsupported_attention(layer.self_attn)
            or unsupported_feed_forward(layer.feed_forward)
            or unsupported_feed_forward(layer.feed_forward_macaron)
        )

    def run(self, x: torch.Tensor, frames: Frames) -> torch.Tensor:
        """Return the active rows (N, D), N > 0, after the layer."""
        layout = layout_of(frames)
        if self.macaron is not None:
            x = self.macaron(x).add_(x)
        x = self.attention(x, frames, layout).add_(x)
        if self.conv is not None:
            x = self.conv(x, frames, layout).add_(x)
        x = self.feed_forward(x).add_(x)
        return x if self.norm_final is None else self.norm_final(x)
