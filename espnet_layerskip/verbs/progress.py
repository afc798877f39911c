"""A progress bar on stderr, where that is a terminal."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any

from espnet_layerskip.inference.audio import Utterance
from espnet_layerskip.inference.transcriber import header_seconds

SHOWN_FROM = 10.0
"""Seconds of audio of a single file from which on a bar is worth having."""


class Progress:
    """Counts the utterances of a list, or the seconds of a single file; shows nothing in a file.

    Args:
        utterances: What is transcribed.
        here: By this process: then the seconds are known.
    """

    def __init__(self, utterances: Sequence[Utterance], here: bool):
        self._bar: Any = None
        self._seconds = len(utterances) == 1 and here
        if not utterances or not sys.stderr.isatty():
            return
        total = header_seconds(utterances[0]) if self._seconds else len(utterances)
        if self._seconds and total < SHOWN_FROM:
            return
        try:
            from tqdm import tqdm  # type: ignore[import-untyped]
        except ImportError:  # it comes with ESPnet, which exported models do not need
            return
        seconds = {"unit": " s", "bar_format": "{percentage:3.0f}%|{bar}| {n:.0f}/{total:.0f} s"}
        self._bar = tqdm(
            total=total, file=sys.stderr, leave=False, **(seconds if self._seconds else {})
        )

    def __enter__(self) -> Progress:
        """Start."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()

    def heard(self, seconds: float) -> None:
        """Count the seconds of audio that were read of a single file."""
        if self._bar is not None and self._seconds:
            self._bar.update(min(seconds, self._bar.total - self._bar.n))

    @contextlib.contextmanager
    def step(self) -> Iterator[None]:
        """Count an utterance; what is printed within does not run into the bar."""
        if self._bar is not None:
            self._bar.clear()
        yield
        if self._bar is not None:
            self._bar.update(0 if self._seconds else 1)
            self._bar.refresh()
