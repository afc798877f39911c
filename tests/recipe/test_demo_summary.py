"""The demo's closing table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import demo_summary


def report() -> dict[str, Any]:
    row = {
        "name": "stock",
        "wer": [10.0, 12.0],
        "skip_ratio": 0.0,
        "encoder_flops_per_second": 146e6,
        "status": "ok",
    }
    on = row | {"name": "ours, skipping on", "skip_ratio": 0.455, "wer": [10.51]}
    on["encoder_time_per_second"] = {"median_ms": 4.25}
    return {
        "rows": [row, on, {"name": "bad", "status": "failed: why"}],
        "data": {"dir": "dump/raw/test", "utterances": 3, "words": 15, "seconds": 9.6},
        "environment": {"cpu": "a processor"},
        "settings": {"threads": 1},
    }


def test_the_table_is_aligned_and_says_what_was_measured() -> None:
    lines = demo_summary.summary(report()).splitlines()
    assert lines[1].split("  ")[-1] == "GFLOPs per s of audio"
    assert lines[2].split() == ["stock", "11.0", "0", "not", "timed", "0.146"]
    assert lines[3].split()[-4:] == ["10.5", "46", "4.2", "0.146"]
    assert lines[4].split() == ["bad", "failed:", "why"]
    assert len(lines[1]) == len(lines[2]) == len(lines[3])
    assert lines[-1] == "dump/raw/test: 3 utterances, 15 words, 10 s; a processor, 1 thread"


def test_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "compare.json"
    monkeypatch.setattr("sys.argv", ["x", str(file)])
    with pytest.raises(ValueError, match="compare_exps .stage 16. writes it"):
        demo_summary.main()
    file.write_text(json.dumps(report()))
    demo_summary.main()
    assert "ours, skipping on" in capsys.readouterr().out
