"""The subsampling in front of the layers in its form for inference."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F

from espnet_layerskip.encoders.fast.precision import Op, float_dtype, linear
from espnet_layerskip.encoders.stem import mixes_frames, projection_of


class FastStem:
    """A subsampling of ESPnet's Conv2dSubsampling family, with channels last in memory.

    Args:
        embed: ``conv`` (Conv2d and ReLU in turns), an output projection and positions.
        precision: One of PRECISIONS; int8 is for the projection only.
    """

    def __init__(self, embed: Any, precision: str):
        self.dtype = float_dtype(precision)
        convs = [module for module in embed.conv if isinstance(module, torch.nn.Conv2d)]
        self.convs = [self._conv(conv) for conv in convs]
        projection, self.pos_enc = projection_of(embed)
        weight = projection.weight.view(projection.out_features, convs[-1].out_channels, -1)
        weight = weight.transpose(1, 2).flatten(1)  # (D, C, F') to (D, F', C)
        self.projection = linear(weight, projection.bias, precision)

    @classmethod
    def of(cls, embed: Any, precision: str) -> FastStem | None:
        """Return the fast form of an input layer; None if it runs as it is."""
        convs = getattr(embed, "conv", None)
        if convs is None or mixes_frames(embed):
            return None
        two_d = any(isinstance(module, torch.nn.Conv2d) for module in convs)
        return cls(embed, precision) if two_d else None

    def _conv(self, conv: torch.nn.Conv2d) -> Op:
        weight, bias = conv.weight.detach().to(self.dtype), conv.bias
        return partial(
            F.conv2d,
            weight=weight.contiguous(memory_format=torch.channels_last),
            bias=None if bias is None else bias.detach().to(self.dtype),
            stride=conv.stride,
        )

    def __call__(self, xs_pad: torch.Tensor, masks: None) -> tuple[Any, None]:
        """Return what the module returns for features (B, T, F), without masks."""
        x = xs_pad.to(self.dtype).contiguous()
        batch, length, bins = x.shape
        # one channel has no order of its own; these strides say that it comes last, or else
        # the first convolution puts its channels first and the second copies its input
        x = x.as_strided((batch, 1, length, bins), (length * bins, 1, bins, 1))
        for conv in self.convs:
            x = conv(x).relu_()
        rows = x.permute(0, 2, 3, 1).flatten(2)
        x = self.projection(rows.flatten(0, 1)).view(*rows.shape[:2], -1)
        # its table grows and keeps the dtype of its last input: a copy keeps threads apart
        out = copy.copy(self.pos_enc)(x.float())
        if isinstance(out, tuple):
            return (out[0].to(self.dtype), out[1]), None
        return out.to(self.dtype), None
