"""ESPnet's Branchformer encoder with CTC blank triggered layer-skipping."""

from __future__ import annotations

from typing import Any

import torch

from espnet_layerskip._compat import BranchformerEncoder
from espnet_layerskip.encoders.attention import attend
from espnet_layerskip.encoders.base import LayerSkipEncoder
from espnet_layerskip.encoders.convolution import gated_mlp
from espnet_layerskip.encoders.fast.branchformer import FastBranchformerLayer
from espnet_layerskip.method.frames import Frames


class LayerSkipBranchformerEncoder(LayerSkipEncoder, BranchformerEncoder):  # type: ignore[misc]
    """ESPnet's BranchformerEncoder whose upper layers run on the non-blank frames only.

    Options are those of ESPnet's BranchformerEncoder and of `LayerSkipEncoder`. ESPnet's class
    has no intermediate CTC. Here ``interctc_layer_idx`` and ``interctc_use_conditioning`` are as
    in ESPnet's Conformer: intermediate states are normalised.

    With ``merge_method: learned_ave`` the branches are weighted by what they have in all frames,
    and skipped frames have nothing in them: ``skip_context: full`` is refused.
    """

    STOCK = BranchformerEncoder
    FAST = FastBranchformerLayer
    ADDED = {"interctc_layer_idx": [], "interctc_use_conditioning": False}  # noqa: RUF012
    ATTENTION = "attn"

    interctc_layer_idx: list[int] = []  # noqa: RUF012  # of a stock encoder made ours
    interctc_use_conditioning = False

    def init_skipping(self, *args: Any, **kwargs: Any) -> None:
        """Check and store the options; see `LayerSkipEncoder`."""
        num_layers = len(self.encoders)
        if any(not 0 < k < num_layers for k in self.interctc_layer_idx):
            raise ValueError(
                f"interctc_layer_idx must hold layers between 1 and {num_layers - 1}, "
                f"but got {self.interctc_layer_idx}"
            )
        super().init_skipping(*args, **kwargs)

    def end_skipping(self) -> None:
        """Take away what `init_skipping` has added.

        Raises:
            ValueError: With self-conditioning, which ESPnet's class has not.
        """
        if self.interctc_use_conditioning:
            raise ValueError("ESPnet's BranchformerEncoder has no interctc_use_conditioning")
        super().end_skipping()

    def check_context(self, context: str) -> None:
        """Raise ValueError where a layer cannot see frames in that context."""
        super().check_context(context)
        if self.gate_layer_idx and context == "full" and any(map(pools, self.encoders)):
            raise ValueError(
                "skip_context: full needs merge_method: concat or fixed_ave (learned_ave takes "
                "averages of the branches over time, in which skipped frames have no part); use "
                "skip_context: packed or packed_original"
            )

    def run_layer(self, layer: Any, frames: Frames) -> torch.Tensor:
        """Return the active frames (B, M, D) after one ESPnet ``BranchformerEncoderLayer``."""
        x, scale, branches = frames.x, 1.0, []
        if self.training and layer.stochastic_depth_rate > 0:
            if torch.rand(1).item() < layer.stochastic_depth_rate:
                return x
            scale = 1.0 / (1 - layer.stochastic_depth_rate)
        if layer.attn is not None:
            h = attend(layer.attn, layer.norm_mha, layer.norm_mha(x), frames)
            branches.append(layer.dropout(h))
        if layer.cgmlp is not None:
            h = gated_mlp(layer.cgmlp, layer.norm_mlp, layer.norm_mlp(x), frames)
            branches.append(layer.dropout(h))
        merged = merge(layer, branches, frames.mask())
        x = x + scale * layer.dropout(layer.merge_proj(merged))
        return layer.norm_final(x)  # type: ignore[no-any-return]


def pools(layer: Any) -> bool:
    """Return whether a layer merges its branches by averages over time."""
    return bool(layer.use_two_branches and layer.merge_method == "learned_ave")


def merge(layer: Any, branches: list[torch.Tensor], mask: torch.Tensor | None) -> torch.Tensor:
    """Return what a layer makes of its branches, each (B, M, D), before ``merge_proj``.

    Args:
        layer: ESPnet's BranchformerEncoderLayer.
        branches: Of attention and cgMLP, or of one of them.
        mask: (B, M) bool, True = takes part in averages over time; None = all.
    """
    if not layer.use_two_branches:
        return branches[0]
    one, two = branches
    if layer.merge_method == "concat":
        return torch.cat(branches, dim=-1)
    if layer.merge_method == "fixed_ave":
        return (1.0 - layer.cgmlp_weight) * one + layer.cgmlp_weight * two  # type: ignore[no-any-return]
    drop = layer.training and layer.attn_branch_drop_rate > 0
    if drop and torch.rand(1).item() < layer.attn_branch_drop_rate:
        return two
    weights = [
        layer.weight_proj1(average(layer.pooling_proj1, one, mask)),
        layer.weight_proj2(average(layer.pooling_proj2, two, mask)),
    ]
    by = torch.cat(weights, dim=-1).softmax(dim=-1)[..., None]  # (B, 2, 1)
    return by[:, :1] * one + by[:, 1:] * two


def average(score: Any, x: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Return the average (B, D) of x (B, M, D) over time, weighted by its scores."""
    scores = score(x).transpose(1, 2) / x.size(-1) ** 0.5  # (B, 1, M)
    if mask is not None:
        scores = scores.masked_fill(~mask[:, None], torch.finfo(scores.dtype).min)
        weights = scores.softmax(dim=-1).masked_fill(~mask[:, None], 0.0)
    else:
        weights = scores.softmax(dim=-1)
    return torch.matmul(weights, x).squeeze(1)
