"""FLOPs of a forward pass, counted while it runs: what is skipped is not counted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, sdpa_flop_count, shape_wrapper

T = TypeVar("T")
_Mode: Any = TorchDispatchMode  # PyTorch leaves it untyped


def counted(run: Callable[[], T]) -> tuple[T, int]:
    """Run once without gradients; return what it returned and its FLOPs.

    Two FLOPs are a multiply-accumulate. Matrix products, convolutions and attention are counted,
    in fp32, bf16 or dynamic int8 (where an integer operation counts as one). Element-wise
    operations, normalisation and STFT are not. The count needs the real input: with skipping it
    depends on the speech.
    """
    with torch.no_grad(), _Counter() as counter:
        found = run()
    return found, int(counter.flops)


# What inference_mode hands over whole, and no_grad in the parts that the formulas know.
_COMPOSITES = {
    torch.ops.aten.linear.default,
    torch.ops.aten.matmul.default,
    torch.ops.aten.conv1d.default,
    torch.ops.aten.conv2d.default,
    torch.ops.aten.scaled_dot_product_attention.default,
}


class _Counter(_Mode):
    """Adds up PyTorch's formulas for the operators that run.

    PyTorch's own FlopCounterMode also keeps a table by module and tries to decompose every
    operator, which takes many times as long as the forward pass itself.
    """

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0
        self._formulas: dict[Any, Any] = {**flop_registry, **_custom()}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _COMPOSITES:
            with self:
                return func.decompose(*args, **kwargs)
        out = func(*args, **kwargs)
        formula = self._formulas.get(func.overloadpacket)
        if formula is not None:
            self.flops += int(formula(*args, **kwargs, out_val=out))
        return out


def _sdpa(query: Any, key: Any, value: Any, *args: Any, **kwargs: Any) -> int:
    formula: Any = sdpa_flop_count
    return int(formula(query, key, value))


def _int8_linear(x: Any, packed: Any, *args: Any, out_shape: Any = None, **kwargs: Any) -> int:
    num_outputs = 1
    for size in out_shape:
        num_outputs *= size
    return 2 * num_outputs * int(x[-1])


def windows_flops(rows: Any, taps: Any, *_: Any, **__: Any) -> int:
    """Return the FLOPs of windows (N, k, C) times the taps (k, C) of a convolution over time.

    A sum follows; encoders/fast/depthwise.py does so for a few frames. No other product counts.

    Args:
        rows: Shape of what is multiplied in place.
        taps: Shape, or number, of what it is multiplied by.
    """
    if len(rows) != 3 or isinstance(taps, int | float) or rows[1:] != taps:
        return 0
    return 2 * int(rows[0]) * int(rows[1]) * int(rows[2])


def _custom() -> dict[Any, Any]:
    """What PyTorch's counter leaves out on a CPU; only the operators this PyTorch has."""
    wanted = {
        ("aten", "mul_"): windows_flops,
        ("aten", "_scaled_dot_product_flash_attention_for_cpu"): _sdpa,
        ("quantized", "linear_dynamic"): _int8_linear,
    }
    wrapper: Any = shape_wrapper
    return {
        getattr(getattr(torch.ops, space), name): wrapper(formula)
        for (space, name), formula in wanted.items()
        if hasattr(getattr(torch.ops, space), name)
    }
