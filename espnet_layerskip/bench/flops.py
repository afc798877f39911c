"""FLOPs of a forward pass, counted while it runs: what is skipped is not counted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count


def count_flops(run: Callable[[], object]) -> int:
    """Run once without gradients and return its FLOPs (2 per multiply-accumulate).

    Matrix products, convolutions and attention are counted, in fp32, bf16 or dynamic int8
    (where an integer operation counts as one). Element-wise operations, normalisation and
    STFT are not. The count needs the real input: with skipping it depends on the speech.
    """
    with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=_custom()) as counter:
        run()
    return int(counter.get_total_flops())


def _sdpa(query: Any, key: Any, value: Any, *args: Any, **kwargs: Any) -> int:
    formula: Any = sdpa_flop_count
    return int(formula(query, key, value))


def _int8_linear(x: Any, packed: Any, *args: Any, out_shape: Any = None, **kwargs: Any) -> int:
    num_outputs = 1
    for size in out_shape:
        num_outputs *= size
    return 2 * num_outputs * int(x[-1])


def _custom() -> dict[Any, Any]:
    """What PyTorch's counter leaves out on a CPU; only the operators this PyTorch has."""
    wanted = {
        ("aten", "_scaled_dot_product_flash_attention_for_cpu"): _sdpa,
        ("quantized", "linear_dynamic"): _int8_linear,
    }
    return {
        getattr(getattr(torch.ops, space), name): formula
        for (space, name), formula in wanted.items()
        if hasattr(getattr(torch.ops, space), name)
    }
