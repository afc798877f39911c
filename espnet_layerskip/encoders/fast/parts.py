"""What the fast layers of all encoders are made of: the same numbers in fewer operations.

Nothing here is trained, saved or moved: it is built from ESPnet's modules and thrown away.
Exact up to rounding are: one projection for several linear maps of the same input; constant
factors and norms folded into the weights beside them; pointwise convolutions as matrix products;
no dropout, and no masks, because flat frames have no padding.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F

from espnet_layerskip._compat import PositionwiseFeedForward, Swish
from espnet_layerskip.encoders.fast.precision import Op, check_precision, float_dtype, linear
from espnet_layerskip.encoders.fast.stem import FastStem
from espnet_layerskip.method.frames import Frames


def unsupported_feed_forward(module: Any) -> str | None:
    """Return why a feed-forward (None = there is none) has no fast form; None if it has one."""
    if module is None or type(module) is PositionwiseFeedForward:
        return None
    return f"positionwise_layer_type of {type(module).__name__}"


def layer_norm(norm: Any) -> Op:
    """Return a LayerNorm over the last dimension as a function."""
    return partial(
        torch.layer_norm,
        normalized_shape=norm.normalized_shape,
        weight=norm.weight.detach(),
        bias=norm.bias.detach(),
        eps=norm.eps,
    )


def plain_norm(norm: Any) -> Op:
    """Return a LayerNorm without its weights, which `folded` puts into the map after it."""
    return partial(torch.layer_norm, normalized_shape=norm.normalized_shape, eps=norm.eps)


def folded(
    norm: Any, weight: torch.Tensor, bias: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return weight and bias that do after `plain_norm` what these do after ``norm``."""
    weight, bias = weight.detach(), bias.detach()
    return weight * norm.weight.detach(), bias + weight @ norm.bias.detach()


def activation(module: Any) -> Op:
    """Return the activation as a function that may work in place."""
    return partial(F.silu, inplace=True) if type(module) is Swish else module  # type: ignore[no-any-return]


class FeedForward:
    """``weight * feed_forward(norm(x))``."""

    def __init__(self, norm: Any, module: Any, weight: float, precision: str):
        self.norm, self.activation = layer_norm(norm), activation(module.activation)
        self.w_1 = linear(module.w_1.weight, module.w_1.bias, precision)
        self.w_2 = linear(weight * module.w_2.weight, weight * module.w_2.bias, precision)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Return (N, D) of rows (N, D)."""
        return self.w_2(self.activation(self.w_1(self.norm(x))))


class FastEncoder:
    """A whole encoder: subsampling and layers; the rest (norms, gates) stays with the encoder.

    Args:
        encoder: A `LayerSkipEncoder`, whose class names the `FastLayer` of its layers in ``FAST``.
        precision: One of PRECISIONS. In bfloat16 everything but the norms' weights is
            bfloat16; in int8 only the matrix products with weights are int8.

    Raises:
        ValueError: For an unknown precision or an encoder without a fast form.
    """

    def __init__(self, encoder: Any, precision: str = "float32"):
        first = next(encoder.parameters())
        check_precision(precision, first.device)
        reasons = {
            reason for layer in encoder.encoders if (reason := encoder.FAST.unsupported(layer))
        }
        if first.dtype != torch.float32:
            reasons.add(f"the weights are {first.dtype}, not float32")
        if reasons:
            raise ValueError(f"this encoder has no fast form: {', '.join(sorted(reasons))}")
        with torch.no_grad():
            self.precision = precision
            self.layers = [encoder.FAST(layer, precision) for layer in encoder.encoders]
            self.stem = FastStem.of(encoder.embed, precision)


class FastLayer:
    """A layer in evaluation mode, for flat frames; ``run`` says what it does.

    A subclass is built as ``FastLayer(layer, precision)`` of a layer of ESPnet.
    """

    def __init__(self, precision: str):
        self.dtype = float_dtype(precision)

    @staticmethod
    def unsupported(layer: Any) -> str | None:
        """Return why a layer of ESPnet has no fast form; None if it has one."""
        raise NotImplementedError

    def run(self, x: torch.Tensor, frames: Frames) -> torch.Tensor:
        """Return the active rows (N, D), N > 0, after the layer."""
        raise NotImplementedError

    def __call__(self, frames: Frames) -> torch.Tensor:
        """Return the active frames (1, N, D) after the layer."""
        x = frames.x[0]
        if not x.size(0):
            return frames.x
        if x.dtype != self.dtype:  # of ESPnet's own subsampling, or conditioned by its own layer
            x = x.to(self.dtype)
        return self.run(x, frames)[None]
