"""Conformer encoder with CTC blank triggered layer-skipping."""

from __future__ import annotations

import inspect
from contextlib import suppress
from typing import Any

import torch
import torch.nn.functional as F

from espnet_layerskip._compat import (
    CTC,
    ConformerEncoder,
    MultiHeadedAttention,
    RelPositionMultiHeadedAttention,
    TooShortUttError,
    check_short_utt,
)
from espnet_layerskip.encoders.attention import positional_attention, slice_pos_emb
from espnet_layerskip.encoders.fast.conformer import FastConformer, FastConformerLayer
from espnet_layerskip.encoders.fast.stem import narrow_stem
from espnet_layerskip.method.frames import Frames
from espnet_layerskip.method.packing import PackedIndex, gather_frames, scatter_frames
from espnet_layerskip.method.walk import LayerSkipMixin


class LayerSkipConformerEncoder(LayerSkipMixin, ConformerEncoder):  # type: ignore[misc]
    """ESPnet's ConformerEncoder whose upper layers run on the non-blank frames only.

    Hou et al., ASRU 2023, arXiv:2401.02046. Parameter names are ESPnet's, so a stock
    checkpoint loads as it is, and with ``blank_threshold: 1.0`` the output is the stock
    output. The output has the full length T': a skipped frame keeps the state which it had
    at its gate.

    Deviation from ESPnet 202511: padded frames are masked out of the convolution and the
    output length of an utterance does not depend on its batch neighbours (202611 does so
    too), because a gate must decide alike alone and in a batch.

    Args:
        input_size ... use_flash_attn: As in ESPnet's ConformerEncoder.
        use_sdpa: As in ESPnet 202611; must be False in 202511.
        stem_channels: Channels of the subsampling's convolutions; 0 = ``output_size``, as in
            ESPnet. Fewer make it cheaper, quadratically (conv2d at 96 channels is a
            quarter of the work of 8 layers of that width).
        gate_layer_idx: 1-based layers K after which a gate sits; several make a cascade;
            [] = never skip.
        blank_threshold: A frame is skipped where p(blank) > this; in (0, 1], 1.0 = off.
        spike_extension: [left, right] neighbours of each non-blank frame that run too.
        skip_context: What a kept frame sees in the upper layers: "packed" (kept frames
            only, positions = order in the packed sequence), "packed_original" (kept frames
            only, at their original positions), "full" (attention keys/values and the
            convolution's neighbours include the frozen states of skipped frames).
        min_spike_ratio: An utterance with fewer spikes per frame runs at full depth.
        repeat_threshold: Of neighbouring frames with the same most probable label, each with a
            probability above this, only the peak (with its extension) runs the upper layers,
            and the others take its state over; in (0, 1], 1.0 = off.
        train_skip_prob: Share of training batches in which the gates are applied.
        train_spike_extensions: In training, one of these is drawn for each gated batch;
            [] = always ``spike_extension``.

    Raises:
        ValueError: For an option out of its range or a combination that cannot work.
    """

    def __init__(
        self,
        input_size: int,
        output_size: int = 256,
        attention_heads: int = 4,
        linear_units: int = 2048,
        num_blocks: int = 6,
        dropout_rate: float = 0.1,
        positional_dropout_rate: float = 0.1,
        attention_dropout_rate: float = 0.0,
        input_layer: str | torch.nn.Module | None = "conv2d",
        normalize_before: bool = True,
        concat_after: bool = False,
        positionwise_layer_type: str = "linear",
        positionwise_conv_kernel_size: int = 3,
        macaron_style: bool = False,
        rel_pos_type: str = "legacy",
        pos_enc_layer_type: str = "rel_pos",
        selfattention_layer_type: str = "rel_selfattn",
        activation_type: str = "swish",
        use_cnn_module: bool = True,
        zero_triu: bool = False,
        cnn_module_kernel: int = 31,
        padding_idx: int = -1,
        interctc_layer_idx: list[int] = [],  # noqa: B006  ESPnet's own default
        interctc_use_conditioning: bool = False,
        ctc_trim: bool = False,
        stochastic_depth_rate: float | list[float] = 0.0,
        layer_drop_rate: float = 0.0,
        max_pos_emb_len: int = 5000,
        qk_norm: bool = False,
        use_flash_attn: bool = True,
        use_sdpa: bool = False,
        stem_channels: int = 0,
        gate_layer_idx: list[int] = [],  # noqa: B006  must be YAML-able, is not mutated
        blank_threshold: float = 0.9,
        spike_extension: list[int] = [1, 1],  # noqa: B006
        skip_context: str = "full",
        min_spike_ratio: float = 0.02,
        train_skip_prob: float = 0.0,
        train_spike_extensions: list[list[int]] = [],  # noqa: B006
        repeat_threshold: float = 1.0,
    ):
        stock = {
            name: value
            for name, value in locals().items()
            if name in inspect.signature(ConformerEncoder.__init__).parameters and name != "self"
        }
        if use_sdpa and "use_sdpa" not in stock:
            raise ValueError("use_sdpa needs ESPnet 202611 or newer: set it to false here")
        super().__init__(**stock)
        if gate_layer_idx and ctc_trim:
            raise ValueError("gate_layer_idx and ctc_trim cannot be combined: choose one of them")
        if gate_layer_idx and positionwise_layer_type != "linear":
            raise ValueError(
                "gate_layer_idx needs positionwise_layer_type: linear (a convolution would mix "
                f"frames across the gap), but got {positionwise_layer_type!r}"
            )
        if stem_channels:
            narrow_stem(self.embed, stem_channels)
        self._fast: FastConformer | None = None
        self.register_load_state_dict_post_hook(_refresh_fast)
        self._stock_trim = ctc_trim
        # ESPnetASRModel.encode hands its CTC head to an encoder only if one of
        # interctc_use_conditioning and ctc_trim is true; the gates need the head.
        self.ctc_trim = ctc_trim or bool(gate_layer_idx)
        self.init_skipping(
            num_blocks,
            gate_layer_idx,
            blank_threshold,
            spike_extension,
            skip_context,
            min_spike_ratio,
            train_skip_prob,
            train_spike_extensions,
            repeat_threshold,
        )

    def optimize_for_inference(self, precision: str = "float32") -> None:
        """Run evaluation on rearranged weights: the same output (1e-5), sooner.

        The parameters stay as they are; ``train()`` goes back to them, and new weights or
        another device are taken over (not those that are written in place into a parameter:
        call it again). Outputs of the fast form carry no gradients.

        Args:
            precision: "float32", "bfloat16", or "int8" (matrix products with weights, on a
                CPU). In int8 the activations are scaled by the largest of a batch, so an
                output may depend on the batch in the order of the rounding.

        Raises:
            ValueError: For an unknown precision, in training mode, or for a model that has
                no fast form; `encoders.fast.unsupported` tells which.
        """
        self._fast = None if self.training else FastConformer(self, precision)
        if self._fast is None:
            raise ValueError("optimize_for_inference needs evaluation mode: call eval() first")

    def refresh_fast(self) -> None:
        """Take changed parameters over into the fast form, or end it where it has become none."""
        if self._fast is not None:
            precision, self._fast = self._fast.precision, None
            with suppress(ValueError):
                self.optimize_for_inference(precision)

    def fast_layers(self) -> list[FastConformerLayer] | None:
        """Return the layers of the fast form, or None where the plain ones are to run."""
        return None if self._fast is None else self._fast.layers

    def train(self, mode: bool = True) -> LayerSkipConformerEncoder:
        """Set the mode; training ends the fast form."""
        if mode:
            self._fast = None
        super().train(mode)
        return self

    def _apply(self, fn: Any, recurse: bool = True) -> LayerSkipConformerEncoder:
        """Move the parameters (``to()`` and the like), and the fast form with them."""
        super()._apply(fn, recurse)
        self.refresh_fast()
        return self

    def check_context(self, context: str) -> None:
        """Raise ValueError where the attention type cannot see frames out of their order."""
        attention = self.encoders[0].self_attn
        known = type(attention) in (RelPositionMultiHeadedAttention, MultiHeadedAttention)
        if self.gate_layer_idx and context != "packed" and not known:
            raise ValueError(
                f"skip_context: {context} needs rel_pos_type: latest or selfattention_layer_type: "
                f"selfattn, but the attention is {type(attention).__name__}; "
                "use skip_context: packed"
            )

    def forward(
        self,
        xs_pad: torch.Tensor,
        ilens: torch.Tensor,
        prev_states: torch.Tensor | None = None,
        masks: torch.Tensor | None = None,
        ctc: CTC | None = None,
        return_all_hs: bool = False,
    ) -> tuple[Any, torch.Tensor, torch.Tensor | None]:
        """Encode a batch.

        Args:
            xs_pad: Features (B, T, F).
            ilens: Their lengths (B,).
            prev_states: Not used.
            masks: (B, T) bool, True = padding (as ESPnet's argument); default from ilens.
            ctc: CTC head, needed where gates are active.
            return_all_hs: Return the states of all layers too; runs at full depth.

        Returns:
            ``out, olens, None`` with out (B, T', D); in training, and inside
            ``mode(intermediates=True)``, ``(out, [(layer_idx, h), ...]), olens, None``.

        Raises:
            TooShortUttError: If the batch is too short for the subsampling.
            ValueError: If a gate is active and ``ctc`` is missing.
        """
        if self._stock_trim:
            return super().forward(xs_pad, ilens, prev_states, masks, ctc, return_all_hs)  # type: ignore[no-any-return]
        lens = ilens.to(xs_pad.device) if masks is None else (~masks).sum(-1)
        x, pos_emb, olens = self.subsample(xs_pad, lens)
        valid_mask = torch.arange(x.size(1), device=x.device) < olens[:, None]
        x, outs = self.run_layers(x, pos_emb, valid_mask, ctc, return_all_hs)
        x = self._normalised(x)
        return ((x, outs) if outs else x), olens, None

    def run_layer(self, layer: Any, frames: Frames) -> torch.Tensor:
        """Return the active frames (B, M, D) after one ESPnet ``EncoderLayer``."""
        if isinstance(layer, FastConformerLayer):
            return layer(frames)
        x, scale = frames.x, 1.0
        if self.training and layer.stochastic_depth_rate > 0:
            if torch.rand(1).item() < layer.stochastic_depth_rate:
                return x
            scale = 1.0 / (1 - layer.stochastic_depth_rate)
        pre = layer.normalize_before

        def residual(x: torch.Tensor, norm: Any, module: Any, weight: float) -> torch.Tensor:
            y: torch.Tensor = x + weight * layer.dropout(module(norm(x) if pre else x))
            return y if pre else norm(y)  # type: ignore[no-any-return]

        if layer.feed_forward_macaron is not None:
            weight = scale * layer.ff_scale
            x = residual(x, layer.norm_ff_macaron, layer.feed_forward_macaron, weight)
        if layer.concat_after:
            h = layer.norm_mha(x) if pre else x
            both = torch.cat((h, self._attend(layer, h, frames)), dim=-1)
            x = x + scale * layer.concat_linear(both)
            x = x if pre else layer.norm_mha(x)
        else:
            x = residual(x, layer.norm_mha, lambda h: self._attend(layer, h, frames), scale)
        if layer.conv_module is not None:
            x = residual(x, layer.norm_conv, lambda h: self._convolve(layer, h, frames), scale)
        x = residual(x, layer.norm_ff, layer.feed_forward, scale * layer.ff_scale)
        return layer.norm_final(x) if layer.conv_module is not None else x

    def subsample(
        self, xs_pad: torch.Tensor, lens: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor]:
        """Subsample; the length of an utterance is the one which it has alone."""
        too_short, limit = check_short_utt(self.embed, xs_pad.size(1))
        if too_short:
            raise TooShortUttError(
                f"has {xs_pad.size(1)} frames and is too short for subsampling "
                f"(it needs more than {limit} frames), return empty results",
                xs_pad.size(1),
                limit,
            )
        if hasattr(self.embed, "conv"):  # ESPnet's Conv2dSubsampling family
            stem = (self._fast and self._fast.stem) or self.embed
            out, _ = stem(xs_pad, None)
            for conv in self.embed.conv:
                if isinstance(conv, torch.nn.Conv2d):
                    lens = (lens - conv.kernel_size[0]) // conv.stride[0] + 1
        else:
            out = self.embed(xs_pad)
        x, pos_emb = out if isinstance(out, tuple) else (out, None)
        return x, pos_emb, lens.clamp(min=0, max=x.size(1))

    def _attend(self, layer: Any, h: torch.Tensor, frames: Frames) -> torch.Tensor:
        """Self-attention of the active frames ``h`` (B, M, D), already normalised."""
        attn, index = layer.self_attn, frames.index
        mask, keys = frames.mask(), h
        if index is not None and frames.context == "full":
            mask, keys = frames.valid_mask, self._over_frozen(layer.norm_mha, h, frames)
        mask = None if mask is None else mask[:, None, :]
        if frames.pos_emb is None:
            out = attn(h, keys, keys, mask)
        elif index is None or frames.context == "packed":
            out = attn(h, h, h, slice_pos_emb(attn, frames.pos_emb, h.size(1)), mask)
        else:
            out = positional_attention(
                attn, h, keys, frames.pos_emb, index, mask, frames.context == "full"
            )
        attn.attn = None  # ESPnet keeps (B, H, M, M) alive until the next forward
        return out  # type: ignore[no-any-return]

    def _convolve(self, layer: Any, h: torch.Tensor, frames: Frames) -> torch.Tensor:
        """Convolution module on the active frames ``h`` (B, M, D), already normalised."""
        module, index = layer.conv_module, frames.index

        def pointwise(z: torch.Tensor) -> torch.Tensor:
            return F.glu(module.pointwise_conv1(z.transpose(1, 2)), dim=1).transpose(1, 2)

        z = pointwise(h)
        if index is None or frames.context == "packed":
            mask = frames.mask()
            z = z if mask is None else z.masked_fill(~mask[..., None], 0.0)
            z = module.depthwise_conv(z.transpose(1, 2))
        else:
            assert frames.frozen is not None
            if frames.context == "full":
                normed = layer.norm_conv(frames.frozen) if layer.normalize_before else frames.frozen
                base = pointwise(normed)
                if frames.valid_mask is not None:
                    base = base.masked_fill(~frames.valid_mask[..., None], 0.0)
            else:
                base = torch.zeros_like(frames.frozen)
            z = module.depthwise_conv(scatter_frames(base, z, index).transpose(1, 2))
            z = gather_frames(z.transpose(1, 2), index).transpose(1, 2)
        z = module.activation(self._batch_norm(module.norm, z, index))
        return module.pointwise_conv2(z).transpose(1, 2)  # type: ignore[no-any-return]

    def _over_frozen(self, norm: Any, h: torch.Tensor, frames: Frames) -> torch.Tensor:
        """Return ``h`` at full length (B, T, D), over the normalised states of skipped frames."""
        assert frames.frozen is not None
        assert frames.index is not None
        base = norm(frames.frozen) if self.normalize_before else frames.frozen
        return scatter_frames(base, h, frames.index)

    def _batch_norm(self, norm: Any, z: torch.Tensor, index: PackedIndex | None) -> torch.Tensor:
        """BatchNorm (B, D, M); in training padded slots stay out of the statistics."""
        if not self.training or index is None or not index.is_padded:
            return norm(z)  # type: ignore[no-any-return]
        z = z.transpose(1, 2)
        out = z.clone()
        out[index.slot_mask] = norm(z[index.slot_mask]).to(out.dtype)
        return out.transpose(1, 2)


def _refresh_fast(encoder: LayerSkipConformerEncoder, incompatible_keys: Any) -> None:
    """Take loaded parameters over; a function of the module, so that encoders can be pickled."""
    encoder.refresh_fast()
