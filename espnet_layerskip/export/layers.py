"""The layers of the encoders that can be exported, in a graph.

A layer reads ESPnet's module once and adds itself to graphs: rows (R, D) and what they see (`Whole`
or `Gated`) to rows.
"""

from __future__ import annotations

from typing import Any

import torch

from espnet_layerskip.export.gated import Gated, Glu, SpatialGate
from espnet_layerskip.export.graph import Graph
from espnet_layerskip.export.parts import (
    activation,
    apply,
    array,
    feed_forward,
    layer_norm,
    linear,
    plain_norm,
)
from espnet_layerskip.export.rows import Attention, Whole


class ConvolutionLayer:
    """ESPnet's layer with attention and a convolution module (``encoder: conformer``)."""

    reach = 0
    """Neighbours on each side whose attention is needed too."""
    normed = True
    """Whether the CTC head takes its output after the encoder's last norm."""

    def __init__(self, layer: Any):
        self.layer = layer
        self.attention = Attention(layer.norm_mha, layer.self_attn)
        self.unit: Glu | None = None
        if (module := layer.conv_module) is None:
            return
        first, conv = module.pointwise_conv1, module.depthwise_conv
        self.unit = Glu(layer.norm_conv, first.weight[..., 0], first.bias)
        norm = module.norm
        gain = norm.weight * (norm.running_var + norm.eps).rsqrt()
        self.weight = array(gain[:, None, None] * conv.weight)
        self.bias = array(norm.bias + gain * (conv.bias - norm.running_mean))

    def __call__(self, g: Graph, x: str, rows: Whole | Gated) -> str:
        """Return rows (R, D) after the layer."""
        layer = self.layer
        if layer.feed_forward_macaron is not None:
            x = feed_forward(
                g, layer.norm_ff_macaron, layer.feed_forward_macaron, layer.ff_scale, x
            )
        x = g.op("Add", x, rows.attend(self.attention, x))
        if self.unit is not None:
            h = plain_norm(g, layer.norm_conv, x)
            h = rows.convolve(self.unit, self.weight, self.bias, h)
            second = layer.conv_module.pointwise_conv2
            h = activation(g, layer.conv_module.activation, h)
            h = linear(g, h, array(second.weight[..., 0].t()), array(second.bias))
            x = g.op("Add", x, h)
        x = feed_forward(g, layer.norm_ff, layer.feed_forward, layer.ff_scale, x)
        return layer_norm(g, layer.norm_final, x) if self.unit is not None else x


class PlainLayer:
    """ESPnet's layer of attention and feed-forward (``encoder: transformer``)."""

    reach = 0
    normed = True
    unit = None

    def __init__(self, layer: Any):
        self.layer = layer
        self.attention = Attention(layer.norm1, layer.self_attn)

    def __call__(self, g: Graph, x: str, rows: Whole | Gated) -> str:
        """Return rows (R, D) after the layer."""
        x = g.op("Add", x, rows.attend(self.attention, x))
        return feed_forward(g, self.layer.norm2, self.layer.feed_forward, 1.0, x)


class BranchesLayer:
    """ESPnet's layer of attention beside a cgMLP (``encoder: e_branchformer``)."""

    normed = False

    def __init__(self, layer: Any):
        self.layer = layer
        self.attention = Attention(layer.norm_mha, layer.attn)
        self.unit = SpatialGate(layer.norm_mlp, layer.cgmlp)
        fusion = layer.depthwise_conv_fusion
        self.reach = fusion.padding[0]
        self.weight, self.bias = array(fusion.weight.clone()), array(fusion.bias)
        self.weight[:, 0, self.reach] += 1.0  # the residual connection

    def __call__(self, g: Graph, x: str, rows: Whole | Gated) -> str:
        """Return rows (R, D) after the layer."""
        layer, unit = self.layer, self.unit
        csgu, scale = layer.cgmlp.csgu, layer.ff_scale
        if layer.feed_forward_macaron is not None:
            x = feed_forward(g, layer.norm_ff_macaron, layer.feed_forward_macaron, scale, x)
        seen = rows.attend(self.attention, x)
        h = plain_norm(g, layer.norm_mlp, x)
        gate = rows.convolve(unit, array(csgu.conv.weight), array(csgu.conv.bias), h)
        if csgu.linear is not None:
            gate = apply(g, csgu.linear, gate)
        if not isinstance(csgu.act, torch.nn.Identity):
            gate = activation(g, csgu.act, gate)
        content = activation(g, unit.activation, linear(g, rows.queries_of(h), *unit.content))
        gated = apply(g, layer.cgmlp.channel_proj2, g.op("Mul", content, gate))
        both = rows.merge(self.weight, self.bias, g.op("Concat", seen, gated, axis=1))
        x = g.op("Add", x, apply(g, layer.merge_proj, both))
        if layer.feed_forward is not None:
            x = feed_forward(g, layer.norm_ff, layer.feed_forward, scale, x)
        return layer_norm(g, layer.norm_final, x)


LAYERS: dict[str, Any] = {
    "layerskip_conformer": ConvolutionLayer,
    "layerskip_e_branchformer": BranchesLayer,
    "layerskip_transformer": PlainLayer,
}
