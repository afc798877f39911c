"""The subsampling in front of the layers, narrower than ESPnet's.

Layer-skipping cannot make it cheaper, and with ESPnet's defaults it is a quarter of the encoder.
"""

from __future__ import annotations

from typing import Any, cast

import torch

from espnet_layerskip._compat import (
    Conv2dSubsampling,
    ConvolutionalPositionalEmbedding,
    TooShortUttError,
    check_short_utt,
)


def own_copy(module: Any) -> Any:
    """Return a copy of a module that shares its parameters.

    ESPnet's modules store things while they run (attention weights, longer positional
    tables). A copy for each call keeps threads apart.
    """
    found = object.__new__(type(module))  # copy.copy refuses modules with weight norm
    found.__dict__.update(module.__dict__)
    found._modules = {name: own_copy(child) for name, child in module._modules.items()}
    return found


def subsample(
    embed: Any, fast: Any, xs_pad: torch.Tensor, lens: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor]:
    """Return subsampled features (B, T', D), positions and lengths (B,).

    Args:
        embed: ESPnet's input layer, or None.
        fast: Its fast form, or None.
        xs_pad: Features (B, T, F).
        lens: Their lengths (B,).

    Raises:
        TooShortUttError: If the batch is too short.
    """
    too_short, limit = check_short_utt(embed, xs_pad.size(1))
    if too_short:
        raise TooShortUttError(
            f"has {xs_pad.size(1)} frames and is too short for subsampling "
            f"(it needs more than {limit} frames), return empty results",
            xs_pad.size(1),
            limit,
        )
    if hasattr(embed, "conv"):  # ESPnet's subsampling classes
        out, _ = (own_copy(embed) if fast is None else fast)(xs_pad, None)
        for conv in embed.conv:
            if isinstance(conv, torch.nn.Conv1d | torch.nn.Conv2d):
                lens = (lens - conv.kernel_size[0]) // conv.stride[0] + 1
    else:
        out = xs_pad if embed is None else own_copy(embed)(xs_pad)
    x, pos_emb = out if isinstance(out, tuple) else (out, None)
    return x, pos_emb, lens.clamp(min=0, max=x.size(1))


def mixes_frames(embed: Any) -> bool:
    """Return whether positions are convolutions, which read an utterance's padding too."""
    modules = () if embed is None else embed.modules()
    return any(isinstance(module, ConvolutionalPositionalEmbedding) for module in modules)


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
    projection, _ = projection_of(embed)
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


def projection_of(embed: Any) -> tuple[torch.nn.Linear, Any]:
    """Return output projection and positional encoding: two modules in 202611, one in 202511."""
    if isinstance(embed.out, torch.nn.Sequential):
        projection, pos_enc = embed.out
        return cast(torch.nn.Linear, projection), pos_enc
    return embed.out, embed.pos_enc
