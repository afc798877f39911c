"""Lines that say how far a step is."""

from __future__ import annotations

import logging

import pytest

from espnet_layerskip.recipe.progress import Progress


def test_lines_come_now_and_then_with_the_time_left(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    time = [0.0]
    progress = Progress("spoken", 10, every=5.0, clock=lambda: time[0])
    for _ in range(10):
        time[0] += 2.0
        progress.step()
    assert caplog.messages == [
        "spoken: 3 of 10 utterances (30 %), about 14 s left",
        "spoken: 6 of 10 utterances (60 %), about 8 s left",
        "spoken: 9 of 10 utterances (90 %), about 2 s left",
    ]


def test_a_short_step_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    progress = Progress("spoken", 3)
    for _ in range(3):
        progress.step()
    assert not caplog.messages
