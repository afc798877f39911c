"""The sentence that heads a comparison."""

from __future__ import annotations

from typing import Any

import pytest

from espnet_layerskip.evaluation.verdict import speed_ups, verdict


def rows(on_ms: list[float], **changes: Any) -> list[dict[str, Any]]:
    off = {"name": "off", "wer": [9.0], "skip_ratio": 0.0, "status": "ok", "off": None}
    off |= {"stops": False, "encoder_time_per_second": {"median_ms": 2.0}}
    off["encoder_time_by_length"] = {str(n): {"median_ms": 2.0} for n in (3, 10, 20)[: len(on_ms)]}
    on = off | {"name": "on", "off": "off", "wer": [9.2], "skip_ratio": 0.71}
    lengths = zip((3, 10, 20), on_ms, strict=False)
    on["encoder_time_by_length"] = {str(n): {"median_ms": ms} for n, ms in lengths}
    stopped = on | {"name": "stopped", "stops": True}
    return [off, stopped, on | changes]


@pytest.mark.parametrize(
    ("records", "expected"),
    [
        (
            rows([2.0, 1.6, 1.25]),
            "Skipping 71 % of the frames makes the encoder 1.25 and 1.60 times as fast on 10 s "
            "and 20 s of audio, but on 3 s of audio it does not pay (1.00 times), at 9.2 % word "
            "errors, against 9.0 % at full depth.",
        ),
        (
            rows([1.0, 1.0], wer_against_off={"low": -1.16, "high": 1.79}),
            "Skipping 71 % of the frames makes the encoder 2.00 times as fast on 3 s and 10 s of "
            "audio, at 9.2 % word errors, against 9.0 % at full depth (95 % interval of the "
            "difference -1.2 to +1.8 points).",
        ),
        (rows([]), "Skipping 71 % of the frames does not pay: the encoder is 1.00 times as fast"),
        (rows([2.1, 2.2]), "Skipping 71 % of the frames does not pay on 3 s and 10 s of audio"),
        (rows([1.0], status="failed: WER"), "Skipping 71 % of the frames costs too much: 9.2 %"),
        (rows([2.0], skip_ratio=0.0), "No frame skips: 9.2 % word errors, against 9.0 %"),
        (rows([1.0])[:2], ""),
        ([{"name": "bad", "status": "failed: why"}], ""),
    ],
)
def test_the_sentence(records: list[dict[str, Any]], expected: str) -> None:
    assert verdict(records).startswith(expected)
    assert bool(verdict(records)) == bool(expected)


def test_speed_ups_are_of_medians() -> None:
    off, _, on = rows([1.0])
    assert speed_ups(on, off) == {"3": 2.0}
    assert speed_ups(on | {"encoder_time_by_length": {}}, off) == {"": 1.0}
    assert speed_ups({}, off) == {}
