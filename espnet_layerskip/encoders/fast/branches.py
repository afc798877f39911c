"""The two branches of a Branchformer's layer, attention and cgMLP, behind one projection.

Both read the same frames through a norm of their own. What the norms share is done once, and what
they do not share (their weights) goes into the projections of the branches, which are one.
"""

from __future__ import annotations

from typing import Any

import torch

from espnet_layerskip.encoders.fast.attention import Scores, projections
from espnet_layerskip.encoders.fast.depthwise import Depthwise
from espnet_layerskip.encoders.fast.layout import Layout
from espnet_layerskip.encoders.fast.parts import activation, folded, layer_norm, plain_norm
from espnet_layerskip.encoders.fast.precision import Op, linear
from espnet_layerskip.method.frames import Frames


class Branches:
    """Attention and cgMLP up to their output projections.

    Args:
        layer: ESPnet's layer with both branches.
        precision: One of PRECISIONS.
    """

    def __init__(self, layer: Any, precision: str):
        unit, first = layer.cgmlp.csgu, layer.cgmlp.channel_proj1[0]
        self.scores = Scores(layer.attn, precision)
        norm = layer.norm_mha
        self.norm = plain_norm(norm)
        self.size = norm.normalized_shape[0]
        weights, biases = projections(layer.attn)
        maps = [folded(norm, *both) for both in zip(weights, biases, strict=True)]
        # of the cgMLP's channels one half is the content, the other one its gate
        halves = zip(first.weight.detach().chunk(2), first.bias.detach().chunk(2), strict=True)
        query, key, value = maps
        content, gate = (folded(layer.norm_mlp, *half) for half in halves)

        def joined(*parts: tuple[torch.Tensor, torch.Tensor]) -> Op:
            weights, biases = zip(*parts, strict=True)
            return linear(torch.cat(weights), torch.cat(biases), precision)

        self.all = joined(query, key, value, content, gate)
        self.of_keys = joined(key, value, gate)
        self.first_activation: Op = layer.cgmlp.channel_proj1[1]
        self.gate_norm = layer_norm(unit.norm)
        self.conv = Depthwise(unit.conv.weight, unit.conv.bias, precision)
        self.linear = None
        if unit.linear is not None:
            self.linear = linear(unit.linear.weight, unit.linear.bias, precision)
        self.activation: Op | None = None
        if not isinstance(unit.act, torch.nn.Identity):
            self.activation = activation(unit.act)

    def __call__(
        self, x: torch.Tensor, frames: Frames, layout: Layout
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return what the branches' output projections take, of the layout's query rows.

        Args:
            x: Active rows (N, D).
            frames: Where these come from.
            layout: Theirs; it may have more queries than rows.

        Returns:
            (M, D) of the attention and (M, U / 2) of the cgMLP.
        """
        size, heads = self.size, self.scores.heads
        y = self.all(layout.queries(self.norm, self.norm(x), frames))
        skipped = None
        if layout.over_frozen:
            skipped = self.of_keys(layout.skipped(self.norm, frames, y.dtype))
            [q] = heads(y[:, :size], 1)
            k, v = heads(layout.keys(skipped[:, : 2 * size], y[:, size : 3 * size]), 2)
            skipped = self.gate_norm(self.first_activation(skipped[:, 2 * size :]))
        else:
            q, k, v = heads(y[:, : 3 * size], 3)
        both = self.first_activation(y[:, 3 * size :])
        content, gate = both[:, : both.size(1) // 2], both[:, both.size(1) // 2 :]
        seen = self.scores(q, k, v, frames.pos_emb, layout)
        gate = layout.convolve(self.conv, self.gate_norm(gate), skipped)
        if self.linear is not None:
            gate = self.linear(gate)
        if self.activation is not None:
            gate = self.activation(gate)
        return seen, content.mul_(gate)
