"""How far a long step is, for people."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

Log = Callable[[str], object]
EVERY = 10.0  # seconds


def to_stderr(line: str) -> None:
    """Print a line at once, beside the results."""
    print(line, file=sys.stderr, flush=True)


def note_utterances(log: Log, what: str, total: int) -> Callable[[int], None]:
    """Return what takes the number of utterances done, and says now and then how far a step is."""
    began = told = time.monotonic()

    def note(done: int) -> None:
        nonlocal told
        now = time.monotonic()
        if now - told >= EVERY:
            told, spent = now, now - began
            left = spent / done * (total - done)
            log(f"  {what}: {done} of {total} utterances, {spent:.0f} s, {left:.0f} s to go")

    return note
