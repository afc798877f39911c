"""Progress of a long step, for people: what, how far, and how much time is left."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable


def duration(seconds: float) -> str:
    """Write a time the way it is said.

    >>> duration(42.3), duration(312), duration(7500)
    ('42 s', '5 min', '2 h 5 min')
    """
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


class Progress:
    """Logs at most every few seconds how far a step is.

    Args:
        what: Name of the step.
        total: Number of things to do.
        unit: What they are, in the plural.
        every: Seconds between two lines.
        clock: Tells the time in seconds.
    """

    def __init__(
        self,
        what: str,
        total: int,
        unit: str = "utterances",
        every: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.what, self.total, self.unit, self.every, self.clock = what, total, unit, every, clock
        self.done = 0
        self.start = self.last = clock()

    def step(self) -> None:
        """Count one more thing as done."""
        self.done += 1
        now = self.clock()
        if now - self.last < self.every or self.done == self.total:
            return
        self.last = now
        left = (now - self.start) / self.done * (self.total - self.done)
        logging.info(
            "%s: %d of %d %s (%d %%), about %s left",
            *(self.what, self.done, self.total, self.unit),
            *(100 * self.done // self.total, duration(left)),
        )
