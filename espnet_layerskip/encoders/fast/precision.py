"""Affine maps in float32, bfloat16 or dynamic int8, for inference."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F

from espnet_layerskip.method.settings import PRECISIONS, check_choice

Op = Callable[[torch.Tensor], torch.Tensor]


def check_precision(precision: str, device: torch.device) -> None:
    """Raise ValueError for an unknown precision, or for one that the device does not have."""
    check_choice("precision", precision, PRECISIONS)
    if precision == "int8" and device.type != "cpu":
        raise ValueError(f"precision int8 runs on a CPU, but the model is on {device}")


def float_dtype(precision: str) -> torch.dtype:
    """Return the dtype of what is not quantized."""
    return torch.bfloat16 if precision == "bfloat16" else torch.float32


def linear(weight: torch.Tensor, bias: torch.Tensor | None, precision: str) -> Op:
    """Return the affine map of float32 weight (out, in) and bias (out,) in a precision.

    It takes rows (N, in). float32: the weights are stored as (in, out), which for a few rows is up
    to 1.7 times as fast. int8: weights are quantized once, per output channel; activations in each
    call, over all rows.
    """
    weight, bias = weight.detach(), None if bias is None else bias.detach()
    if precision == "int8":
        scale = weight.abs().amax(1).clamp(min=1e-8) / 127.0
        zero = torch.zeros_like(scale, dtype=torch.long)
        quantized = torch.quantize_per_channel(weight, scale.double(), zero, 0, torch.qint8)
        packed = torch.ops.quantized.linear_prepack(quantized, bias)
        return partial(_int8_linear, packed)
    dtype = float_dtype(precision)
    bias = None if bias is None else bias.to(dtype).contiguous()
    if dtype != torch.float32:
        return partial(F.linear, weight=weight.to(dtype).contiguous(), bias=bias)
    by_input = weight.t().contiguous()
    if bias is None:
        return partial(torch.mm, mat2=by_input)
    return partial(torch.addmm, bias, mat2=by_input)


def _int8_linear(packed: object, x: torch.Tensor) -> torch.Tensor:
    # reduced range: 7 bits of activations, which no CPU's 8-bit products can overflow
    y: torch.Tensor = torch.ops.quantized.linear_dynamic(x, packed, True)
    return y
