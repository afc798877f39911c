"""ESPnet's Transformer encoder with CTC blank triggered layer-skipping."""

from __future__ import annotations

from typing import Any

import torch

from espnet_layerskip._compat import TransformerEncoder
from espnet_layerskip.encoders import attention
from espnet_layerskip.encoders.base import LayerSkipEncoder
from espnet_layerskip.encoders.fast.transformer import FastTransformerLayer
from espnet_layerskip.method.frames import Frames


class LayerSkipTransformerEncoder(LayerSkipEncoder, TransformerEncoder):  # type: ignore[misc]
    """ESPnet's TransformerEncoder whose upper layers run on the non-blank frames only.

    Options are those of ESPnet's TransformerEncoder and of `LayerSkipEncoder`. Positions are
    added to the input, so a frame has its own in every ``skip_context``: "packed" and
    "packed_original" are the same. ``layer_drop_rate`` has no effect, as in ESPnet's class.
    """

    STOCK = TransformerEncoder
    FAST = FastTransformerLayer

    def run_layer(self, layer: Any, frames: Frames) -> torch.Tensor:
        """Return the active frames (B, M, D) after one ESPnet ``EncoderLayer``."""
        x, scale, pre = frames.x, 1.0, layer.normalize_before
        if self.training and layer.stochastic_depth_rate > 0:
            if torch.rand(1).item() < layer.stochastic_depth_rate:
                return x
            scale = 1.0 / (1 - layer.stochastic_depth_rate)

        def norm(states: torch.Tensor) -> torch.Tensor:
            return layer.norm1(states) if pre else states  # type: ignore[no-any-return]

        h = norm(x)
        seen = attention.attend(layer.self_attn, norm, h, frames)
        if layer.concat_after:
            x = x + scale * layer.concat_linear(torch.cat((h, seen), dim=-1))
        else:
            x = x + scale * layer.dropout(seen)
        x = x if pre else layer.norm1(x)
        h = layer.norm2(x) if pre else x
        x = x + scale * layer.dropout(layer.feed_forward(h))
        return x if pre else layer.norm2(x)  # type: ignore[no-any-return]
