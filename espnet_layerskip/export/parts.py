"""What the layers of all encoders are made of, in a graph.

Pointwise parts work on rows (R, D), all frames of a batch one after the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from espnet_layerskip._compat import PositionwiseFeedForward, Swish
from espnet_layerskip.encoders.stem import projection_of
from espnet_layerskip.export.graph import Array, Graph


def array(tensor: torch.Tensor) -> Array:
    """Return a tensor as a float32 array."""
    return tensor.detach().float().cpu().numpy()


def linear(g: Graph, x: str, weight: Array, bias: Array | None = None) -> str:
    """Return ``x @ weight + bias`` of rows (R, I); weight is (I, O)."""
    if bias is None:
        return g.op("MatMul", x, g.const(weight))
    return g.op("Gemm", x, g.const(weight), g.const(bias))


Map = tuple[Array, Array | None]
"""Weight (I, O) and bias (O,) of an affine map."""


def joined(maps: Sequence[Map]) -> Map:
    """Return one map for several of the same input; the outputs stand side by side."""
    weights = [weight for weight, _ in maps]
    if all(bias is None for _, bias in maps):
        return np.concatenate(weights, 1), None
    biases = [np.zeros(len(w.T), np.float32) if b is None else b for w, b in maps]
    return np.concatenate(weights, 1), np.concatenate(biases)


def products(g: Graph, x: str, maps: Sequence[Map]) -> list[str]:
    """Return what several maps make of rows (R, I), by one product."""
    return g.split(linear(g, x, *joined(maps)), [len(weight.T) for weight, _ in maps], axis=1)


def apply(g: Graph, module: torch.nn.Linear, x: str) -> str:
    """Return what a Linear makes of rows."""
    bias = None if module.bias is None else array(module.bias)
    return linear(g, x, array(module.weight.t()), bias)


def layer_norm(g: Graph, norm: Any, x: str) -> str:
    """Return rows after a LayerNorm."""
    weight, bias = g.const(array(norm.weight)), g.const(array(norm.bias))
    return g.op("LayerNormalization", x, weight, bias, epsilon=norm.eps)


def plain_norm(g: Graph, norm: Any, x: str) -> str:
    """Return rows after a LayerNorm without its weights, for maps with them `folded` in.

    It is the same for all layers, so that the states of frozen frames need it only once.
    """
    return g.op("LayerNormalization", x, g.const(np.ones(norm.normalized_shape)), epsilon=norm.eps)


def folded(norm: Any, weight: torch.Tensor, bias: torch.Tensor | None) -> tuple[Array, Array]:
    """Return weight (I, O) and bias (O,) that do after `plain_norm` what these do after the norm.

    Args:
        norm: LayerNorm over I.
        weight: (O, I).
        bias: (O,), or None for zero.
    """
    weight = weight.detach().double()
    offset = weight @ norm.bias.detach().double()
    if bias is not None:
        offset = offset + bias.detach().double()
    return array((weight * norm.weight.detach()).t()), array(offset)


def swish(g: Graph, x: str) -> str:
    """Return x * sigmoid(x)."""
    return g.op("Mul", x, g.op("Sigmoid", x))


def gelu(g: Graph, x: str) -> str:
    """Return the exact GELU."""
    erf = g.op("Erf", g.op("Mul", x, g.const(2.0**-0.5)))
    return g.op("Mul", g.op("Mul", x, g.const(0.5)), g.op("Add", erf, g.const(1.0)))


# By class: a function, or the name of an operator.
ACTIVATIONS: dict[type, Any] = {
    Swish: swish,
    torch.nn.GELU: gelu,
    torch.nn.ReLU: "Relu",
    torch.nn.SELU: "Selu",
    torch.nn.Sigmoid: "Sigmoid",
    torch.nn.Tanh: "Tanh",
}


def activation(g: Graph, module: Any, x: str) -> str:
    """Return x after an activation."""
    made = ACTIVATIONS[type(module)]
    return g.op(made, x) if isinstance(made, str) else made(g, x)  # type: ignore[no-any-return]


def unsupported_activation(layer: torch.nn.Module) -> str | None:
    """Return which activation of a layer cannot be exported; None if all can."""
    kinds = {type(module) for module in layer.modules()} - ACTIVATIONS.keys()
    unknown = [k.__name__ for k in kinds if k.__module__ == "torch.nn.modules.activation"]
    return f"the activation {unknown[0]}" if unknown else None


def feed_forward(g: Graph, norm: Any, module: Any, weight: float, x: str) -> str:
    """Return ``x + weight * feed_forward(norm(x))``; x as it is where there is none."""
    if module is None:
        return x
    assert type(module) is PositionwiseFeedForward
    h = activation(g, module.activation, apply(g, module.w_1, layer_norm(g, norm, x)))
    second = module.w_2
    out = linear(g, h, array(weight * second.weight.t()), array(weight * second.bias))
    return g.op("Add", x, out)


def depthwise(g: Graph, weight: Array, bias: Array, grid: str) -> str:
    """Return (B, T, C) after a depthwise convolution that keeps the length; weight is (C, 1, k)."""
    reach = weight.shape[2] // 2
    x = g.op("Transpose", grid, perm=[0, 2, 1])
    kernel, offset = g.const(weight), g.const(bias)
    x = g.op("Conv", x, kernel, offset, group=len(weight), pads=[reach, reach])
    return g.op("Transpose", x, perm=[0, 2, 1])


def unsupported_stem(embed: Any) -> str | None:
    """Return why a subsampling cannot be exported; None if it can."""
    convs = getattr(embed, "conv", None)
    known = (torch.nn.Conv2d, torch.nn.ReLU)
    if convs is None or any(type(module) not in known for module in convs):
        return f"the input layer is {type(embed).__name__}, not one of the conv2d family"
    kind = type(projection_of(embed)[1]).__name__
    if kind not in ("PositionalEncoding", "RelPositionalEncoding"):
        return f"the positions are {kind}"
    return None


def subsampled(g: Graph, embed: Any, feats: str, lens: str) -> tuple[str, str]:
    """Return subsampled features (B, T', D), without positions, and their lengths (B,).

    Args:
        g: The graph.
        embed: ESPnet's, for which `unsupported_stem` finds nothing.
        feats: Features (B, F, T): with time last no transposition is needed before the end.
        lens: Their lengths.
    """
    x = g.op("Unsqueeze", feats, g.ints(1))
    for conv in embed.conv:
        if isinstance(conv, torch.nn.ReLU):
            x = g.op("Relu", x)
            continue
        weight, bias = array(conv.weight.transpose(2, 3)), array(conv.bias)
        x = g.op("Conv", x, g.const(weight), g.const(bias), strides=list(conv.stride[::-1]))
        size, step = g.ints(conv.kernel_size[0]), g.ints(conv.stride[0])
        lens = g.op("Add", g.op("Div", g.op("Sub", lens, size), step), g.ints(1))
    projection, positions = projection_of(embed)
    channels = next(c.out_channels for c in reversed(embed.conv) if hasattr(c, "out_channels"))
    x = g.op("Transpose", x, perm=[0, 3, 1, 2])
    x = g.reshape(x, 0, 0, channels * (projection.in_features // channels))
    scale = positions.xscale
    weight, bias = array(scale * projection.weight.t()), array(scale * projection.bias)
    return g.op("Add", g.op("MatMul", x, g.const(weight)), g.const(bias)), lens
