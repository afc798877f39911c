"""ESPnet's Conformer encoder with CTC blank triggered layer-skipping."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from espnet_layerskip._compat import ConformerEncoder
from espnet_layerskip.encoders import attention
from espnet_layerskip.encoders.base import LayerSkipEncoder
from espnet_layerskip.encoders.convolution import convolve
from espnet_layerskip.encoders.fast.conformer import FastConformerLayer
from espnet_layerskip.method.frames import Frames
from espnet_layerskip.method.packing import PackedIndex


class LayerSkipConformerEncoder(LayerSkipEncoder, ConformerEncoder):  # type: ignore[misc]
    """ESPnet's ConformerEncoder whose upper layers run on the non-blank frames only.

    Hou et al., ASRU 2023, arXiv:2401.02046. The output has the full length T': a skipped frame
    keeps the state that it had at its gate. Options are those of ESPnet's ConformerEncoder and
    of `LayerSkipEncoder`.
    """

    STOCK = ConformerEncoder
    FAST = FastConformerLayer

    def run_layer(self, layer: Any, frames: Frames) -> torch.Tensor:
        """Return the active frames (B, M, D) after one ESPnet ``EncoderLayer``."""
        x, scale = frames.x, 1.0
        if self.training and layer.stochastic_depth_rate > 0:
            if torch.rand(1).item() < layer.stochastic_depth_rate:
                return x
            scale = 1.0 / (1 - layer.stochastic_depth_rate)
        pre = layer.normalize_before

        def before(norm: Any, x: torch.Tensor) -> torch.Tensor:
            return norm(x) if pre else x  # type: ignore[no-any-return]

        def residual(norm: Any, x: torch.Tensor, change: torch.Tensor, by: float) -> torch.Tensor:
            y: torch.Tensor = x + by * layer.dropout(change)
            return y if pre else norm(y)  # type: ignore[no-any-return]

        def attend(h: torch.Tensor) -> torch.Tensor:
            def norm(frozen: torch.Tensor) -> torch.Tensor:
                return before(layer.norm_mha, frozen)

            return attention.attend(layer.self_attn, norm, h, frames)

        if layer.feed_forward_macaron is not None:
            norm, by = layer.norm_ff_macaron, scale * layer.ff_scale
            x = residual(norm, x, layer.feed_forward_macaron(before(norm, x)), by)
        h = before(layer.norm_mha, x)
        if layer.concat_after:
            x = x + scale * layer.concat_linear(torch.cat((h, attend(h)), dim=-1))
            x = x if pre else layer.norm_mha(x)
        else:
            x = residual(layer.norm_mha, x, attend(h), scale)
        if layer.conv_module is not None:
            h = before(layer.norm_conv, x)
            x = residual(layer.norm_conv, x, self.convolve(layer, h, frames), scale)
        change = layer.feed_forward(before(layer.norm_ff, x))
        x = residual(layer.norm_ff, x, change, scale * layer.ff_scale)
        return layer.norm_final(x) if layer.conv_module is not None else x

    def convolve(self, layer: Any, h: torch.Tensor, frames: Frames) -> torch.Tensor:
        """Return the convolution module's output on active frames in their context.

        Args:
            layer: ESPnet's EncoderLayer.
            h: Active frames (B, M, D), normalised.
            frames: Where these come from.
        """
        module = layer.conv_module

        def pointwise(z: torch.Tensor) -> torch.Tensor:
            return F.glu(module.pointwise_conv1(z.transpose(1, 2)), dim=1).transpose(1, 2)

        def skipped(frozen: torch.Tensor) -> torch.Tensor:
            return pointwise(layer.norm_conv(frozen) if layer.normalize_before else frozen)

        z = convolve(module.depthwise_conv, pointwise(h), frames, skipped)
        z = module.activation(batch_norm(module.norm, z, frames.index))
        return module.pointwise_conv2(z).transpose(1, 2)  # type: ignore[no-any-return]


def batch_norm(norm: Any, z: torch.Tensor, index: PackedIndex | None) -> torch.Tensor:
    """Return BatchNorm of z (B, D, M); in training padded slots stay out of the statistics.

    A single frame has no variance: it is normalised as in evaluation.
    """
    if not norm.training or index is None:
        return norm(z)  # type: ignore[no-any-return]
    if int(index.slot_mask.sum()) < 2:
        mean, var = norm.running_mean, norm.running_var
        return F.batch_norm(z, mean, var, norm.weight, norm.bias, False, 0.0, norm.eps)
    if not index.is_padded:
        return norm(z)  # type: ignore[no-any-return]
    z = z.transpose(1, 2)
    out = z.clone()
    out[index.slot_mask] = norm(z[index.slot_mask]).to(out.dtype)
    return out.transpose(1, 2)
