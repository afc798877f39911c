"""The device that a program is to run on."""

from __future__ import annotations

import torch


def check_device(device: str, dtype: str = "float32") -> None:
    """Refuse a device that is not there, and numbers that cannot hold the features on it.

    Args:
        device: "cpu", "cuda" or "cuda:N".
        dtype: Name of the numbers.

    Raises:
        ValueError: Says what to choose.
    """
    try:
        wanted = torch.device(device)
    except RuntimeError as e:
        raise ValueError(f"device must be cpu, cuda or cuda:N, but got {device!r}") from e
    if wanted.type == "cuda" and (wanted.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"device {device}: PyTorch finds {torch.cuda.device_count()} GPUs here (is there one, "
            "and its driver?): use cpu (--device cpu, --ngpu 0)"
        )
    if dtype not in ("float16", "bfloat16", "float32", "float64"):
        raise ValueError(f"dtype must be float32, float64 or float16, but got {dtype!r}")
    if dtype not in ("float32", "float64") and (dtype != "float16" or wanted.type == "cpu"):
        raise ValueError(
            f"dtype {dtype} on device {device}: it cannot hold the power spectrum. Use float32, "
            "with precision bfloat16 for a faster encoder"
        )
