"""ESPnet's E-Branchformer encoder with CTC blank triggered layer-skipping."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

from espnet_layerskip._compat import EBranchformerEncoder
from espnet_layerskip.encoders.attention import attend
from espnet_layerskip.encoders.base import LayerSkipEncoder
from espnet_layerskip.encoders.convolution import convolve, gated_mlp, with_border, without_border
from espnet_layerskip.encoders.distributed import of_first_process
from espnet_layerskip.encoders.fast.e_branchformer import FastEBranchformerLayer
from espnet_layerskip.method.frames import Encoded, Frames, LayerState
from espnet_layerskip.method.settings import SkipSettings


class NormAtTheEnd:
    """Part of encoders whose last norm belongs to the last layer, not to every CTC head."""

    after_norm: Any

    def normalised(self, x: torch.Tensor) -> torch.Tensor:
        """Return states (B, M, D) of an intermediate layer as the CTC head takes them: these."""
        return x.to(self.after_norm.weight.dtype)  # type: ignore[no-any-return]

    def finish(self, state: LayerState, olens: torch.Tensor, settings: SkipSettings) -> Encoded:
        """Return the result of a pass; frames that ran all layers are normalised."""
        out, trace = self.normalised(state.full()), state.trace()
        if state.layer_idx == len(state.layers):
            last = super().normalised(out)  # type: ignore[misc]
            skipped = None if trace is None else (trace.valid_mask & ~trace.spoken_mask)[..., None]
            out = last if skipped is None else torch.where(skipped, out, last)
        return Encoded(out, olens, (), trace, settings.exit_layer)


class LayerSkipEBranchformerEncoder(NormAtTheEnd, LayerSkipEncoder, EBranchformerEncoder):  # type: ignore[misc]
    """ESPnet's EBranchformerEncoder whose upper layers run on the non-blank frames only.

    Options are those of ESPnet's EBranchformerEncoder and of `LayerSkipEncoder`.

    As in ESPnet's class, the last norm belongs to the last layer: CTC heads of intermediate
    layers take the states as they are, so a skipped frame leaves the encoder with the state that
    its gate has seen. The convolution that merges the branches reads what they compute; in
    ``skip_context: full`` they run for skipped frames at its border too.
    """

    STOCK = EBranchformerEncoder
    FAST = FastEBranchformerLayer
    ATTENTION = "attn"

    layer_drop_rate: float
    gradient_checkpoint_layers: list[int]

    def forward(  # type: ignore[override]  # the order of the arguments is ESPnet's
        self,
        xs_pad: torch.Tensor,
        ilens: torch.Tensor,
        prev_states: torch.Tensor | None = None,
        masks: torch.Tensor | None = None,
        ctc: Any = None,
        max_layer: int | None = None,
        return_all_hs: bool = False,
    ) -> tuple[Any, torch.Tensor, torch.Tensor | None]:
        """Encode a batch with ESPnet's interface; as of `LayerSkipEncoder`, and:

        Args:
            xs_pad: Features (B, T, F).
            ilens: Their lengths (B,).
            prev_states: Not used.
            masks: (B, T) bool, True = padding; default from ilens.
            ctc: CTC head, needed where gates are active.
            max_layer: Number of layers to run; the last norm comes after them.
            return_all_hs: Return the states of all layers too, without self-conditioning.
        """
        encoder = self
        if max_layer is not None or return_all_hs:
            encoder = self._with_layers(
                list(self.encoders)[:max_layer], [] if return_all_hs else self.interctc_layer_idx
            )
            if (fast := self.fast_form()) is not None:
                encoder._fast = copy.copy(fast)
                encoder._fast.layers = fast.layers[:max_layer]
        return LayerSkipEncoder.forward(
            encoder, xs_pad, ilens, prev_states, masks, ctc, return_all_hs
        )

    def run(
        self,
        xs_pad: torch.Tensor,
        ilens: torch.Tensor,
        ctc: Any = None,
        settings: SkipSettings | None = None,
        **options: Any,
    ) -> Encoded:
        """As of `LayerSkipEncoder`, and in training layers are dropped (``layer_drop_rate``).

        As in ESPnet a dropped layer gives no intermediate state and does not condition, but a
        gate after it still decides, and gets its state.
        """
        encoder = self
        if self.training and self.layer_drop_rate > 0.0:
            drawn = of_first_process(torch.empty(len(self.encoders)).uniform_())
            dropped = (drawn < self.layer_drop_rate).tolist()
            encoder = self._with_layers(
                [None if d else one for d, one in zip(dropped, self.encoders, strict=True)],
                [k for k in self.interctc_layer_idx if not dropped[k - 1]],
            )
        return LayerSkipEncoder.run(encoder, xs_pad, ilens, ctc, settings, **options)

    def _with_layers(self, layers: Sequence[Any], interctc_layer_idx: list[int]) -> Any:
        """Return a copy for one call with other layers; None = it is dropped."""
        found = copy.copy(self)
        found._modules = {k: v for k, v in self._modules.items() if k != "encoders"}
        found.__dict__.update(encoders=layers, interctc_layer_idx=interctc_layer_idx)
        return found

    def subsample(
        self, xs_pad: torch.Tensor, lens: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor]:
        """As of `LayerSkipEncoder`, with ESPnet's gradient checkpoint 0."""
        run = super().subsample
        if 0 in self.gradient_checkpoint_layers:
            return checkpoint(run, xs_pad, lens, use_reentrant=False)  # type: ignore[no-any-return]
        return run(xs_pad, lens)

    def run_layer(self, layer: Any, frames: Frames) -> torch.Tensor:
        """Return the active frames (B, M, D) after one ESPnet ``EBranchformerEncoderLayer``."""
        if layer is None:
            return frames.x
        numbers = self.gradient_checkpoint_layers
        if any(layer is one and k in numbers for k, one in enumerate(self.encoders, 1)):
            # `frames` will have gone on when the layer is run again
            return checkpoint(_layer, layer, copy.copy(frames), use_reentrant=False)  # type: ignore[no-any-return]
        return _layer(layer, frames)


def _layer(layer: Any, frames: Frames) -> torch.Tensor:
    return layer.norm_final(blocks(layer, frames))  # type: ignore[no-any-return]


def blocks(layer: Any, frames: Frames) -> torch.Tensor:
    """Return the active frames (B, M, D) after a layer, before its last norm."""
    x, scale, fusion = frames.x, layer.ff_scale, layer.depthwise_conv_fusion
    if layer.feed_forward_macaron is not None:
        h = layer.feed_forward_macaron(layer.norm_ff_macaron(x))
        x = x + scale * layer.dropout(h)
    bordered = frames.index is not None and frames.context == "full"
    near = with_border(frames, x, fusion.padding[0]) if bordered else frames
    states = near.x if bordered else x
    seen = attend(layer.attn, layer.norm_mha, layer.norm_mha(states), near)
    gated = gated_mlp(layer.cgmlp, layer.norm_mlp, layer.norm_mlp(states), near)
    both = torch.cat((layer.dropout(seen), layer.dropout(gated)), dim=-1)
    both = both + convolve(fusion, both, near).transpose(1, 2)
    if bordered:
        both = without_border(near, both, frames)
    x = x + layer.dropout(layer.merge_proj(both))
    if layer.feed_forward is not None:
        x = x + scale * layer.dropout(layer.feed_forward(layer.norm_ff(x)))
    return x  # type: ignore[no-any-return]
