"""Interleaved timing: A B A B ..., after warm-up, so that a noisy machine is fair to all rows."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

MIN_REPEATS = 5


@dataclass(frozen=True)
class Case:
    """One thing to time.

    Attributes:
        run: What is timed.
        prepare: Called right before every ``run``, outside the measured time.
    """

    run: Callable[[], object]
    prepare: Callable[[], object] | None = None


@dataclass(frozen=True)
class Timing:
    """All raw timings of one case, in seconds, in the order in which they were taken."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """Median in seconds."""
        return statistics.median(self.seconds)

    @property
    def min(self) -> float:
        """Fastest repeat in seconds."""
        return min(self.seconds)

    @property
    def max(self) -> float:
        """Slowest repeat in seconds."""
        return max(self.seconds)

    def scaled(self, factor: float) -> Timing:
        """Return the timings times ``factor``, for instance per input instead of per pass."""
        return Timing(tuple(s * factor for s in self.seconds))

    def as_ms(self) -> dict[str, Any]:
        """Return median, min, max and every raw timing in milliseconds, for JSON."""
        return {
            "median_ms": 1e3 * self.median,
            "min_ms": 1e3 * self.min,
            "max_ms": 1e3 * self.max,
            "raw_ms": [1e3 * s for s in self.seconds],
        }


def time_interleaved(
    inputs: Sequence[Mapping[str, Case]],
    repeats: int = MIN_REPEATS,
    warmup: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Timing]:
    """Time the named cases in turns: A B A B ... on the first input, then on the next one.

    One repeat is a pass over all inputs; its time is the sum over the inputs. Every case
    therefore meets the machine's slow moments alike.

    Args:
        inputs: For each input the cases by name; the same names, in the same order, for each.
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

    for _ in range(warmup):
        for cases in inputs:
            for case in cases.values():
                _time_once(case, clock)
    seconds = {name: [0.0] * repeats for name in names}
    for repeat in range(repeats):
        for cases in inputs:
            for name, case in cases.items():
                seconds[name][repeat] += _time_once(case, clock)
    return {name: Timing(tuple(values)) for name, values in seconds.items()}


def _time_once(case: Case, clock: Callable[[], float]) -> float:
    if case.prepare is not None:
        case.prepare()
    start = clock()
    case.run()
    return clock() - start


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
