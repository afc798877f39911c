"""Interleaved timing in changing order, after warm-up: a noisy machine is fair to all rows."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

MIN_REPEATS = 5


def summary(seconds: Sequence[float], per: float = 1.0, unit: str = "s") -> dict[str, Any]:
    """Return median, min, max and every raw timing, for JSON.

    Args:
        seconds: Timings.
        per: What to divide them by, for instance the number of inputs of a pass.
        unit: "s" or "ms"; ends the names.
    """
    times = [{"s": 1.0, "ms": 1e3}[unit] * one / per for one in seconds]
    values = {"median": statistics.median(times), "min": min(times), "max": max(times)}
    return {f"{name}_{unit}": value for name, value in {**values, "raw": times}.items()}


def time_interleaved(
    inputs: Sequence[Mapping[str, Callable[[], object]]],
    repeats: int = MIN_REPEATS,
    warmup: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Time the named cases in turns: all of them on the first input, then on the next one.

    One repeat is a pass over all inputs; its time is the sum over the inputs. Every case
    therefore meets the machine's slow moments alike. Their order is drawn anew for each input, by
    a fixed seed: one that always ran after the same other one would find the caches as that left
    them, and could be a tenth faster or slower for it.

    Args:
        inputs: For each input what to time, by name; the same names, in the same order, for each.
        repeats: Measured passes, at least 5.
        warmup: Passes before that are not measured, at least 1.
        clock: Seconds, monotonic.

    Returns:
        For each name ``repeats`` timings in seconds.

    Raises:
        ValueError: For no inputs, fewer than 5 repeats, no warm-up or differing names.
    """
    if not inputs or not inputs[0]:
        raise ValueError("nothing to time: got no inputs or no cases; give at least one of each")
    if repeats < MIN_REPEATS:
        raise ValueError(f"repeats is {repeats}, but a median needs at least {MIN_REPEATS}")
    if warmup < 1:
        raise ValueError(f"warmup is {warmup}, but at least 1 pass has to warm the caches up")
    names = list(inputs[0])
    for i, cases in enumerate(inputs):
        if list(cases) != names:
            raise ValueError(f"input {i} has the cases {list(cases)}, but input 0 has {names}")

    seconds = {name: [0.0] * repeats for name in names}
    draw = random.Random(0)
    for repeat in range(-warmup, repeats):
        for cases in inputs:
            for name in draw.sample(names, len(names)):
                start = clock()
                cases[name]()
                if repeat >= 0:
                    seconds[name][repeat] += clock() - start
    return seconds


@contextmanager
def num_threads(n: int) -> Iterator[None]:
    """Pin PyTorch's intra-operator threads to ``n`` inside the block.

    Raises:
        ValueError: If ``n`` is not positive.
    """
    if n < 1:
        raise ValueError(f"the number of threads is {n}, but at least 1 is needed")
    previous = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(previous)
