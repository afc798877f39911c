"""Depthwise convolutions over time, of all frames at once or of a few by their windows."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F

from espnet_layerskip.encoders.fast.precision import float_dtype

# oneDNN takes as long to begin as a product of this many numbers with their sums does.
BEGIN = 2**17
# What one of its products takes, as a share of that.
EACH = 0.1


class Depthwise:
    """A depthwise convolution over time that keeps the length.

    Attributes:
        reach: Neighbours on each side that it reads.

    Args:
        weight: (C, 1, k), k odd.
        bias: (C,).
        precision: One of PRECISIONS; in int8 it is float32.
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor, precision: str):
        dtype = float_dtype(precision)
        self.reach = weight.size(2) // 2
        weight, self.bias = weight.detach().to(dtype), bias.detach().to(dtype)
        self.taps = weight[:, 0].t().contiguous()
        self.run = partial(
            F.conv2d,
            weight=weight[:, :, None],  # (C, 1, 1, k): time is the width
            bias=self.bias,
            groups=weight.size(0),
        )

    def __call__(self, grid: torch.Tensor, padding: int | None = None) -> torch.Tensor:
        """Return (B, W, C) of (B, W, C).

        Args:
            grid: Frames.
            padding: Zeros on each side; None = as many as keep the length.
        """
        pad = self.reach if padding is None else padding
        # in memory this is a channels-last image of height 1
        image = grid[:, None].permute(0, 3, 1, 2)
        return self.run(image, padding=(0, pad)).permute(0, 2, 3, 1)[:, 0]

    def prefers_windows(self, count: int, total: int, rows: torch.Tensor) -> bool:
        """Return whether `windows` is faster for ``count`` of ``total`` frames like ``rows``."""
        if rows.is_cuda or rows.dtype != torch.float32:
            return False
        size = self.taps.numel()
        return count * size <= BEGIN + EACH * total * size

    def windows(self, grid: torch.Tensor, starts: torch.Tensor) -> torch.Tensor:
        """Return (N, C) of the windows that begin in rows ``starts`` (N,) of ``grid`` (M, C)."""
        taps, size = self.taps.shape
        windows = grid.as_strided((grid.size(0) - taps + 1, taps * size), (size, 1))
        rows = windows.index_select(0, starts).view(-1, taps, size)
        return rows.mul_(self.taps).sum(1).add_(self.bias)
