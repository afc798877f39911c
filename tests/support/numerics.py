"""Comparisons of floating-point results that hold on every processor and thread count.

Another processor adds the same numbers in another order. The results then differ by rounding,
which grows with the size of the numbers. So an error is measured here against the largest
magnitude of what is expected: a fixed tolerance is too tight for log-probabilities of -20, and
too loose for gradients of 1e-4.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch

Values = torch.Tensor | np.ndarray

# In float32 about 30 roundings, ten times what four layers make. A real fault changes far more.
RTOL = {torch.float32: 4e-6, torch.float64: 1e-12}


def largest(values: Values) -> float:
    """Return the largest finite magnitude, 0.0 if there is none."""
    values = torch.as_tensor(values).detach().abs()
    if values.numel() and math.isfinite(most := float(values.max())):
        return most
    values = values[values.isfinite()]
    return float(values.max()) if values.numel() else 0.0


def relative_error(actual: Values, expected: Values) -> float:
    """Return the largest difference, as a share of the largest magnitude of ``expected``."""
    return float((torch.as_tensor(actual) - expected).detach().abs().max()) / largest(expected)


def assert_same(
    actual: Values,
    expected: Values,
    rtol: float | None = None,
    scale: float | None = None,
    name: str = "result",
) -> None:
    """Fail unless shape and dtype are the same and all values are, but for rounding.

    Args:
        actual: Values of any shape. NaN is never the same; an infinity is the same as itself.
        expected: What they should be.
        rtol: Allowed difference as a share of ``scale``. Default: that of the dtype in ``RTOL``.
        scale: Size of the numbers that were added up. Default: the largest magnitude of
            ``expected``, so that zeros have to be met exactly.
        name: What failed, for the message.
    """
    actual, expected = torch.as_tensor(actual), torch.as_tensor(expected)
    rtol = RTOL[expected.dtype] if rtol is None else rtol
    scale = largest(expected) if scale is None else scale
    alike = actual.shape == expected.shape and actual.dtype == expected.dtype and expected.numel()
    if alike and float((actual - expected).detach().abs().max()) <= rtol * scale:
        return  # assert_close takes ten times as long, but has the words
    torch.testing.assert_close(
        actual, expected, rtol=0.0, atol=rtol * scale, msg=lambda text: f"{name}: {text}"
    )


def assert_all_same(
    actual: Mapping[str, torch.Tensor],
    expected: Mapping[str, torch.Tensor],
    rtol: float | None = None,
) -> None:
    """As ``assert_same``, by name and on one common scale.

    It is for gradients of parameters: some of them are sums that cancel to zero, such as that of
    the bias of an attention's keys.
    """
    assert actual.keys() == expected.keys()
    scale = max(map(largest, expected.values()))
    assert scale > 0.0, "nothing but zeros to compare"
    for name, values in actual.items():
        assert_same(values, expected[name], rtol, scale, name)
