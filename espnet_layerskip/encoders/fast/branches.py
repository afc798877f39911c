"""The two branches of a Branchformer's layer, attention and cgMLP, behind one projection.

Both read the same frames through a norm of their own. What the norms share is done once, and what
they do not share (their weights) goes into the projections of the branches, which are one.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F

from espnet_layerskip.encoders.fast.attention import Scores, projections
from espnet_layerskip.encoders.fast.layout import Layout
from espnet_layerskip.encoders.fast.parts import Depthwise, activation, layer_norm
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
        self.norm: Op = partial(F.layer_norm, normalized_shape=norm.normalized_shape, eps=norm.eps)
        self.size = norm.normalized_shape[0]
        weights, biases = projections(layer.attn)
        maps = [_folded(norm, *both) for both in zip(weights, biases, strict=True)]
        # of the cgMLP's channels one half is the content, the other one its gate
        halves = zip(first.weight.detach().chunk(2), first.bias.detach().chunk(2), strict=True)
        query, key, value = maps
        content, gate = (_folded(layer.norm_mlp, *half) for half in halves)

        def joined(*parts: tuple[torch.Tensor, torch.Tensor]) -> Op:
            weights, biases = zip(*parts, strict=True)
            return linear(torch.cat(weights), torch.cat(biases), precision)

        self.all = joined(query, key, value, content, gate)
        self.of_queries = joined(query, content)
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
        h, size, heads = self.norm(x), self.size, self.scores.heads
        if layout.over_frozen:
            states = layout.fill(self.norm, h, frames, same_norm=True)
            queries = self.of_queries(h if layout.near is None else layout.queries(states))
            keys = self.of_keys(states)
            [q], (k, v) = heads(queries[:, :size], 1), heads(keys[:, : 2 * size], 2)
            content = self.first_activation(queries[:, size:])
            gate = layout.all_rows(self.gate_norm(self.first_activation(keys[:, 2 * size :])))
        else:
            y = self.all(h)
            q, k, v = heads(y[:, : 3 * size], 3)
            both = self.first_activation(y[:, 3 * size :])
            content, gate = both[:, : both.size(1) // 2], both[:, both.size(1) // 2 :]
            gate = layout.to_grid(self.gate_norm(gate))
        seen = self.scores(q, k, v, frames.pos_emb, layout)
        gate = layout.from_grid(self.conv(gate))
        if self.linear is not None:
            gate = self.linear(gate)
        if self.activation is not None:
            gate = self.activation(gate)
        return seen, content.mul_(gate)


def _folded(
    norm: Any, weight: torch.Tensor, bias: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return weight and bias that do after a norm without weights what these do after ``norm``."""
    return weight * norm.weight.detach(), bias + weight @ norm.bias.detach()
