"""The weights of a Conformer encoder in a form for inference: same numbers, fewer operations.

Nothing here is trained, saved or moved: it is built from ESPnet's modules and thrown away.
Exact up to rounding are: one projection for query, key and value with the scale and the
positional biases folded in; projected positional tables kept from call to call; BatchNorm
folded into the depthwise convolution; residual scales folded into the feed-forward's output;
pointwise convolutions as matrix products; no dropout, and no masks, because flat frames have
no padding.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F

from espnet_layerskip._compat import (
    ConvolutionModule,
    MultiHeadedAttention,
    PositionwiseFeedForward,
    RelPositionMultiHeadedAttention,
    Swish,
)
from espnet_layerskip.encoders.fast.layout import AttentionBlock, Layout
from espnet_layerskip.encoders.fast.precision import Op, check_precision, float_dtype, linear
from espnet_layerskip.encoders.fast.stem import FastStem
from espnet_layerskip.method.frames import Frames
from espnet_layerskip.method.packing import PackedIndex


def unsupported(layer: Any) -> str | None:
    """Return why an ESPnet ``EncoderLayer`` has no fast form; None if it has one."""
    attention, conv = layer.self_attn, layer.conv_module
    if not layer.normalize_before:
        return "normalize_before: false"
    if layer.concat_after:
        return "concat_after: true"
    if type(attention) not in (RelPositionMultiHeadedAttention, MultiHeadedAttention):
        return f"the attention is {type(attention).__name__} (rel_pos_type: legacy)"
    if getattr(attention, "zero_triu", False):
        return "zero_triu: true"
    if not isinstance(attention.q_norm, torch.nn.Identity):
        return "qk_norm: true"
    for feed_forward in (layer.feed_forward, layer.feed_forward_macaron):
        if feed_forward is not None and type(feed_forward) is not PositionwiseFeedForward:
            return f"positionwise_layer_type of {type(feed_forward).__name__}"
    if conv is not None and type(conv) is not ConvolutionModule:
        return f"the convolution module is {type(conv).__name__}"
    if layer.norm_ff.weight.dtype != torch.float32:
        return f"the weights are {layer.norm_ff.weight.dtype}, not float32"
    return None


def layer_norm(norm: Any) -> Op:
    """Return a LayerNorm over the last dimension as a function."""
    return partial(
        F.layer_norm,
        normalized_shape=norm.normalized_shape,
        weight=norm.weight.detach(),
        bias=norm.bias.detach(),
        eps=norm.eps,
    )


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


class Attention:
    """Self-attention of ``norm(x)``; with relative positions (Transformer-XL, 3.3) or without."""

    def __init__(self, norm: Any, module: Any, precision: str):
        self.norm = layer_norm(norm)
        self.dtype = float_dtype(precision)
        self.num_heads = module.h
        scale = module.d_k**-0.5
        linears = [module.linear_q, module.linear_k, module.linear_v]
        weights, biases = [m.weight for m in linears], [m.bias for m in linears]
        weights[0], biases[0] = scale * weights[0], scale * biases[0]
        self.linear_pos, self.shift = None, None
        if isinstance(module, RelPositionMultiHeadedAttention):
            # q + u comes out of the projection; q + v is `shift` away from it
            self.linear_pos = module.linear_pos.weight.detach()
            biases[0] = biases[0] + scale * module.pos_bias_u.flatten()
            shift = scale * (module.pos_bias_v - module.pos_bias_u).detach()
            self.shift = shift[:, None].to(self.dtype)
        self.qkv = linear(torch.cat(weights), torch.cat(biases), precision)
        self.query = linear(weights[0], biases[0], precision)
        self.key_value = linear(torch.cat(weights[1:]), torch.cat(biases[1:]), precision)
        self.out = linear(module.linear_out.weight, module.linear_out.bias, precision)
        self._table: torch.Tensor | None = None

    def __call__(self, x: torch.Tensor, frames: Frames, layout: Layout) -> torch.Tensor:
        """Return (N, D) of rows (N, D)."""
        h = self.norm(x)
        if layout.over_frozen:
            query = self.query(h)
            both = self.key_value(over_frozen(self.norm, h, frames))
            q, (k, v) = self._heads(query, 1)[0], self._heads(both, 2)
        else:
            q, k, v = self._heads(self.qkv(h), 3)
        q_pos, table = q, None
        if self.shift is not None:
            q_pos, table = q + self.shift, self._positions(frames.pos_emb)
        outs = []
        for block in layout.blocks:
            bias = None if table is None else relative_scores(q_pos, table, block)
            out = F.scaled_dot_product_attention(
                q[None, :, block.queries],
                k[None, :, block.keys],
                v[None, :, block.keys],
                bias,
                scale=1.0,
            )
            outs.append(out[0].transpose(0, 1))
        joined = outs[0] if len(outs) == 1 else torch.cat(outs)
        return self.out(joined.reshape(x.shape))

    def _heads(self, y: torch.Tensor, parts: int) -> tuple[torch.Tensor, ...]:
        """Split (N, parts * D) into ``parts`` tensors (H, N, d)."""
        return y.view(y.size(0), parts, self.num_heads, -1).permute(1, 2, 0, 3).unbind(0)

    def _positions(self, pos_emb: torch.Tensor | None) -> torch.Tensor:
        """Return the projected positional table (H, d, 2T-1), of the longest T so far."""
        assert pos_emb is not None
        assert self.linear_pos is not None
        found = self._table  # read once: another thread may put a shorter one there
        if found is None or found.size(2) < pos_emb.size(1):
            table = self.linear_pos @ pos_emb[0].to(self.linear_pos.dtype).t()
            found = table.view(self.num_heads, -1, table.size(1)).to(self.dtype)
            self._table = found
        return found


def relative_scores(q: torch.Tensor, table: torch.Tensor, block: AttentionBlock) -> torch.Tensor:
    """Return the relative scores (1, H, queries, keys) of one block.

    Args:
        q: Queries with their positional bias (H, N, d).
        table: Projected positional table (H, d, 2T-1).
        block: Rows and columns.
    """
    centre = table.size(2) // 2
    scores = torch.bmm(q[:, block.queries], table[..., centre + block.low : centre + block.high])
    heads, rows, width = scores.shape
    if block.columns is not None:
        return scores.gather(2, block.columns.expand(heads, -1, -1))[None]
    # row r begins one column before row r - 1: a stride, no copy
    shape = (1, heads, rows, width - rows + 1)
    stride = (heads * rows * width, rows * width, width - 1, 1)
    return scores.as_strided(shape, stride, scores.storage_offset() + rows - 1)


class Convolution:
    """``conv_module(norm(x))`` with its BatchNorm folded into the depthwise convolution."""

    def __init__(self, norm: Any, module: Any, precision: str):
        self.norm, self.activation = layer_norm(norm), activation(module.activation)
        conv1, depthwise, conv2 = (
            module.pointwise_conv1,
            module.depthwise_conv,
            module.pointwise_conv2,
        )
        self.pointwise_1 = linear(conv1.weight[..., 0], conv1.bias, precision)
        self.pointwise_2 = linear(conv2.weight[..., 0], conv2.bias, precision)
        batch_norm = module.norm
        gain = batch_norm.weight * (batch_norm.running_var + batch_norm.eps).rsqrt()
        weight = gain[:, None, None] * depthwise.weight
        bias = batch_norm.bias + gain * (depthwise.bias - batch_norm.running_mean)
        dtype = float_dtype(precision)
        self.depthwise = partial(
            F.conv2d,
            weight=weight.detach()[:, :, None].to(dtype),  # (D, 1, 1, k): time is the width
            bias=bias.detach().to(dtype),
            padding=(0, depthwise.padding[0]),
            groups=depthwise.groups,
        )

    def __call__(self, x: torch.Tensor, frames: Frames, layout: Layout) -> torch.Tensor:
        """Return (N, D) of rows (N, D)."""
        h = self.norm(x)
        if layout.over_frozen:
            z = F.glu(self.pointwise_1(over_frozen(self.norm, h, frames))).view(frames.shape)
            if frames.valid_mask is not None:
                z = z.masked_fill_(~frames.valid_mask[..., None], 0.0)
        else:
            z = layout.to_grid(F.glu(self.pointwise_1(h)))
        # (B, W, D) in memory is a channels-last image of height 1
        z = self.depthwise(z[:, None].permute(0, 3, 1, 2)).permute(0, 2, 3, 1)[:, 0]
        return self.pointwise_2(self.activation(layout.from_grid(z)))


class FastConformerLayer:
    """One ESPnet ``EncoderLayer`` in evaluation mode, for flat frames.

    Args:
        layer: A layer for which `unsupported` returns None.
        precision: One of PRECISIONS. In bfloat16 everything but the norms' weights is
            bfloat16; in int8 only the matrix products with weights are int8.
    """

    def __init__(self, layer: Any, precision: str = "float32"):
        self.macaron = self.conv = None
        if layer.feed_forward_macaron is not None:
            self.macaron = FeedForward(
                layer.norm_ff_macaron, layer.feed_forward_macaron, layer.ff_scale, precision
            )
        self.attention = Attention(layer.norm_mha, layer.self_attn, precision)
        self.norm_final: Op | None = None
        if layer.conv_module is not None:
            self.conv = Convolution(layer.norm_conv, layer.conv_module, precision)
            self.norm_final = layer_norm(layer.norm_final)
        self.feed_forward = FeedForward(
            layer.norm_ff, layer.feed_forward, layer.ff_scale, precision
        )

    def __call__(self, frames: Frames) -> torch.Tensor:
        """Return the active frames (1, N, D) after the layer."""
        x = frames.x[0]
        if not x.size(0):
            return frames.x
        if frames.layout is None:
            frames.layout = Layout(frames)
        layout = frames.layout
        if self.macaron is not None:
            x = self.macaron(x).add_(x)
        x = self.attention(x, frames, layout).add_(x)
        if self.conv is not None:
            x = self.conv(x, frames, layout).add_(x)
        x = self.feed_forward(x).add_(x)
        return (x if self.norm_final is None else self.norm_final(x))[None]


def over_frozen(norm: Op, h: torch.Tensor, frames: Frames) -> torch.Tensor:
    """Return normalised rows ``h`` (N, D) over the normalised frozen states, (B * T, D)."""
    assert frames.frozen is not None
    assert isinstance(frames.index, PackedIndex)
    base = norm(frames.frozen).view(-1, h.size(1))
    return base.index_copy_(0, frames.index.kept, h)


class FastConformer:
    """A whole encoder: subsampling and layers; the rest (norms, gates) stays with the encoder.

    Args:
        encoder: A LayerSkipConformerEncoder.
        precision: One of PRECISIONS.

    Raises:
        ValueError: For an unknown precision or an encoder without a fast form.
    """

    def __init__(self, encoder: Any, precision: str = "float32"):
        check_precision(precision, next(encoder.parameters()).device)
        reasons = {reason for layer in encoder.encoders if (reason := unsupported(layer))}
        if reasons:
            raise ValueError(f"this encoder has no fast form: {', '.join(sorted(reasons))}")
        with torch.no_grad():
            self.precision = precision
            self.layers = [FastConformerLayer(layer, precision) for layer in encoder.encoders]
            self.stem = (
                FastStem(encoder.embed, precision) if hasattr(encoder.embed, "conv") else None
            )
