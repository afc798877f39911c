"""ESPnet's encoder of OWSM-CTC with CTC blank triggered layer-skipping."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Any

import torch

from espnet_layerskip._compat import EBranchformerCTCEncoder
from espnet_layerskip.encoders.attention import own_copy
from espnet_layerskip.encoders.base import LayerSkipEncoder
from espnet_layerskip.encoders.e_branchformer import NormAtTheEnd, blocks
from espnet_layerskip.encoders.fast.e_branchformer_ctc import FastEBranchformerCTCLayer
from espnet_layerskip.encoders.prefix import PrefixGate, audio_part, prefixed
from espnet_layerskip.encoders.stem import subsample
from espnet_layerskip.method.ctc import head_softmax
from espnet_layerskip.method.frames import Encoded, Frames, LayerState, join
from espnet_layerskip.method.settings import SkipSettings


@dataclass(frozen=True)
class Prompt:
    """What a call of OWSM-CTC's encoder is given beside the audio; each may be left out.

    Attributes:
        prefix_embeds: Language and task (B, P, D), put in front of the frames by subsampling
            input layers (others leave them out, as in ESPnet).
        memory: Prompt text for the cross-attention (B, N, D).
        memory_mask: (B, 1, N) bool, True = may be attended.
        max_layer: 0-based number of the last layer that runs.
    """

    prefix_embeds: torch.Tensor | None = None
    memory: torch.Tensor | None = None
    memory_mask: torch.Tensor | None = None
    max_layer: int | None = None

    def row(self, i: int) -> Prompt:
        """Return that of one utterance."""
        parts = (self.prefix_embeds, self.memory, self.memory_mask)
        prefix, memory, mask = (None if p is None else p[i : i + 1] for p in parts)
        return Prompt(prefix, memory, mask, self.max_layer)


class LayerSkipEBranchformerCTCEncoder(NormAtTheEnd, LayerSkipEncoder, EBranchformerCTCEncoder):  # type: ignore[misc]
    """ESPnet's EBranchformerCTCEncoder whose upper layers run on the non-blank frames only.

    Options are those of ESPnet's EBranchformerCTCEncoder and of `LayerSkipEncoder`.

    - The prefix positions (language, task) run every layer, and no gate looks at them: what it
      decides of the audio, and all ratios and traces, are as without them.
    - CTC heads of intermediate layers and the self-conditioning take the states as they are, the
      last norm belongs to the end: a skipped frame leaves with the state that its gate has seen.
    - The cross-attention of a frame to the prompt runs where the frame does.
    - Intermediate states always come back, those of ``interctc_layer_idx`` and no others.
    """

    STOCK = EBranchformerCTCEncoder
    FAST = FastEBranchformerCTCLayer
    ATTENTION = "attn"

    _prompt = Prompt()  # of a call: on a copy for it, never on the encoder
    _ctc: Any = None

    def forward(  # type: ignore[override]  # the arguments are ESPnet's
        self,
        xs_pad: torch.Tensor,
        ilens: torch.Tensor,
        prev_states: torch.Tensor | None = None,
        ctc: Any = None,
        max_layer: int | None = None,
        prefix_embeds: torch.Tensor | None = None,
        memory: torch.Tensor | None = None,
        memory_mask: torch.Tensor | None = None,
    ) -> tuple[Any, torch.Tensor, None]:
        """Encode a batch with ESPnet's interface, prefix positions and all.

        Args:
            xs_pad: Features (B, T, F).
            ilens: Their lengths (B,).
            prev_states: Not used.
            ctc: CTC head, needed for self-conditioning and where gates are active.
            max_layer: 0-based: K runs K + 1 layers, then the last norm.
            prefix_embeds: See `Prompt`, as for the others.
            memory: See `Prompt`.
            memory_mask: See `Prompt`.

        Returns:
            ``out, olens, None``, or ``(out, [(layer_idx, h), ...]), olens, None`` with an
            ``interctc_layer_idx``; out (B, P + T', D), and olens count the prefix.

        Raises:
            TooShortUttError: If the batch is too short for the subsampling.
            ValueError: If a gate is active and ``ctc`` is missing.
        """
        prompt = Prompt(prefix_embeds, memory, memory_mask, max_layer)
        found = self.run_all(xs_pad, ilens, ctc, prompt=prompt, intermediates=True)
        wanted = tuple(one for one in found.intermediates if one[0] in self.interctc_layer_idx)
        return replace(found, intermediates=wanted).for_espnet(), found.lens, None

    def run(
        self,
        xs_pad: torch.Tensor,
        ilens: torch.Tensor,
        ctc: Any = None,
        settings: SkipSettings | None = None,
        *,
        prompt: Prompt | None = None,
        **options: Any,
    ) -> Encoded:
        """Encode a batch as `LayerSkipEncoder.run`; the result is of the audio's frames alone.

        Args:
            xs_pad: Features (B, T, F).
            ilens: Their lengths (B,).
            ctc: CTC head.
            settings: How to skip.
            prompt: Language, task and previous text; None = none.
            options: ``skip`` and ``intermediates``, as there.
        """
        found = self.run_all(xs_pad, ilens, ctc, settings, prompt=prompt, **options)
        return audio_part(found, self.num_prefix(prompt))

    def run_all(
        self,
        xs_pad: torch.Tensor,
        ilens: torch.Tensor,
        ctc: Any = None,
        settings: SkipSettings | None = None,
        *,
        prompt: Prompt | None = None,
        **options: Any,
    ) -> Encoded:
        """Encode a batch as ``run``; the prefix positions come first in everything it returns."""
        prompt = prompt or Prompt()
        if not (self.training or self.padding_invariant or bool((ilens == ilens[0]).all())):
            rows = enumerate(zip(xs_pad, ilens, strict=True))
            return join(
                [
                    self.run_all(
                        x[None, :n], n[None], ctc, settings, prompt=prompt.row(i), **options
                    )
                    for i, (x, n) in rows
                ]
            )
        self.fast_form()  # made anew here where weights were loaded, not on the copy
        call = copy.copy(self)
        call.__dict__.update(_prompt=prompt, _ctc=ctc)
        return LayerSkipEncoder.run(call, xs_pad, ilens, ctc, settings, **options)

    def gates(self, settings: SkipSettings, skip: bool | None = None) -> dict[int, Any]:
        """As of `LayerSkipEncoder`; they look at the audio only."""
        found = super().gates(settings, skip)
        num_prefix = self.num_prefix()
        return {k: PrefixGate(gate, num_prefix) for k, gate in found.items()}

    def start(
        self, xs_pad: torch.Tensor, ilens: torch.Tensor, settings: SkipSettings
    ) -> tuple[LayerState, torch.Tensor]:
        """As of `LayerSkipEncoder`, with the layers of the call."""
        state, olens = super().start(xs_pad, ilens, settings)
        prompt = self._prompt
        layers = list(state.layers)
        if prompt.max_layer is not None:
            layers = layers[: max(prompt.max_layer, 0) + 1]
        if state.frames.flat and prompt.memory is not None:
            layers = [layer.reading(prompt.memory, prompt.memory_mask) for layer in layers]
        state.layers = layers
        return state, olens

    def subsample(
        self, xs_pad: torch.Tensor, lens: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor]:
        """Return subsampled features behind the prefix, positions and lengths with both."""
        num_prefix, prefix = self.num_prefix(), self._prompt.prefix_embeds
        fast = self.fast_form()
        embed, stem = self.embed, None if fast is None else fast.stem
        if num_prefix:
            assert prefix is not None
            embed, stem = prefixed(embed, stem, prefix)
        x, pos_emb, olens = subsample(embed, stem, xs_pad, lens)
        return x, pos_emb, olens + num_prefix

    def run_layer(self, layer: Any, frames: Frames) -> torch.Tensor:
        """Return the active frames (B, M, D) after one of ESPnet's layers for OWSM-CTC."""
        x, prompt = blocks(layer, frames), self._prompt
        if layer.cross_attn is not None and prompt.memory is not None:
            memory, mask = prompt.memory, prompt.memory_mask
            h = layer.norm_cross_attn(x)
            x = x + layer.dropout(own_copy(layer.cross_attn)(h, memory, memory, mask))
        return layer.norm_final(x)  # type: ignore[no-any-return]

    def finish(self, state: LayerState, olens: torch.Tensor, settings: SkipSettings) -> Encoded:
        """Return the result of a pass; frames that ran all layers of the call are normalised."""
        whole = state.layer_idx == len(state.layers)
        conditions = self.interctc_use_conditioning and state.layer_idx in self.interctc_layer_idx
        if whole and conditions:  # as in ESPnet after max_layer: the norm comes after it
            frames = state.frames
            probs = head_softmax(self._ctc, self.normalised(frames.x), state.layer_idx)
            frames.x = frames.x + self.conditioning_layer(probs)
        return super().finish(state, olens, settings)

    def num_prefix(self, prompt: Prompt | None = None) -> int:
        """Return the number of prefix positions of a prompt; only subsampling puts them there."""
        prefix = (prompt or self._prompt).prefix_embeds
        return prefix.size(1) if prefix is not None and hasattr(self.embed, "conv") else 0
