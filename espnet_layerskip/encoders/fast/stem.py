"""The subsampling in front of the layers: a narrower one, and its form for inference.

No layer-skipping can save it, and with ESPnet's defaults it takes a quarter of the encoder.
"""

from __future__ import annotations

from functools import partial
from typing import Any, cast

import torch
import torch.nn.functional as F

from espnet_layerskip._compat import Conv2dSubsampling
from espnet_layerskip.encoders.fast.precision import Op, float_dtype, linear


def narrow_stem(embed: Any, channels: int) -> None:
    """Give ESPnet's ``conv2d`` subsampling another number of channels, in place.

    Args:
        embed: Conv2dSubsampling of (B, T, F) features to (B, T', D).
        channels: Of both convolutions, at least 1.

    Raises:
        ValueError: For another input layer or number.
    """
    if type(embed) is not Conv2dSubsampling or channels < 1:
        raise ValueError(
            f"stem_channels must be 0 or more and needs input_layer: conv2d, but got {channels} "
            f"for {type(embed).__name__}"
        )
    projection, _ = _projection(embed)
    bins = projection.in_features // embed.conv[0].out_channels
    embed.conv = torch.nn.Sequential(
        torch.nn.Conv2d(1, channels, 3, 2),
        torch.nn.ReLU(),
        torch.nn.Conv2d(channels, channels, 3, 2),
        torch.nn.ReLU(),
    )
    narrow = torch.nn.Linear(channels * bins, projection.out_features)
    if isinstance(embed.out, torch.nn.Sequential):
        embed.out[0] = narrow
    else:
        embed.out = narrow


def _projection(embed: Any) -> tuple[torch.nn.Linear, Any]:
    """Return output projection and positional encoding: two modules in 202611, one in 202511."""
    if isinstance(embed.out, torch.nn.Sequential):
        projection, pos_enc = embed.out
        return cast(torch.nn.Linear, projection), pos_enc
    return embed.out, embed.pos_enc


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
        projection, self.pos_enc = _projection(embed)
        weight = projection.weight.view(projection.out_features, convs[-1].out_channels, -1)
        weight = weight.transpose(1, 2).flatten(1)  # (D, C, F') to (D, F', C)
        self.projection = linear(weight, projection.bias, precision)

    def _conv(self, conv: torch.nn.Conv2d) -> Op:
        weight, bias = conv.weight.detach().to(self.dtype), conv.bias
        return partial(
            F.conv2d,
            weight=weight.contiguous(memory_format=torch.channels_last),
            bias=None if bias is None else bias.detach().to(self.dtype),
            stride=conv.stride,
        )

    def __call__(self, xs_pad: torch.Tensor, masks: None) -> tuple[Any, None]:
        """Return what the module does for features (B, T, F), without masks."""
        x = xs_pad.to(self.dtype).contiguous()
        batch, length, bins = x.shape
        # one channel has no order of its own; these strides say that it comes last, or else
        # the first convolution puts its channels first and the second copies its input
        x = x.as_strided((batch, 1, length, bins), (length * bins, 1, bins, 1))
        for conv in self.convs:
            x = conv(x).relu_()
        x = self.projection(x.permute(0, 2, 3, 1).flatten(2))
        out = self.pos_enc(x.float())  # its table keeps the dtype of its last input
        if isinstance(out, tuple):
            return (out[0].to(self.dtype), out[1]), None
        return out.to(self.dtype), None
