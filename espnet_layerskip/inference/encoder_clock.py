"""Time that a model spends in its encoder."""

from __future__ import annotations

import time
from typing import Any

import torch


class EncoderClock:
    """Adds up the time of every forward of an encoder, in seconds (``seconds``).

    On a GPU it waits for the device before and after, so the time is that of the work.

    Args:
        encoder: Module to watch.
    """

    def __init__(self, encoder: torch.nn.Module):
        self.seconds = 0.0
        self._started = 0.0
        encoder.register_forward_pre_hook(self._start)
        encoder.register_forward_hook(self._stop)

    def _start(self, module: torch.nn.Module, args: Any) -> None:
        self._started = self._now(module)

    def _stop(self, module: torch.nn.Module, args: Any, output: Any) -> None:
        self.seconds += self._now(module) - self._started

    @staticmethod
    def _now(module: torch.nn.Module) -> float:
        if next((p.is_cuda for p in module.parameters()), False):
            torch.cuda.synchronize()
        return time.perf_counter()
