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
        "off": None,
        "stops": False,
    }
    on = row | {"name": "ours, skipping on", "skip_ratio": 0.455, "wer": [10.51], "off": "stock"}
    on["encoder_time_per_second"] = {"median_ms": 4.25}
    on |= {"exps": ["exp/ours"], "settings": "threshold=0.9 extension=0,0 context=full"}
    return {
        "rows": [row, on, {"name": "bad", "status": "failed: why"}],
        "data": {"dir": "dump/raw/test", "utterances": 3, "words": 15, "seconds": 9.6},
        "environment": {"cpu": "a processor"},
        "settings": {"threads": 1},
    }


def test_the_table_is_aligned_and_says_what_was_measured() -> None:
    lines = demo_summary.summary(report()).splitlines()
    rates = "10.5 % word errors, against 11.0 % at full depth"
    assert lines[1] == f"Skipping 46 % of the frames gives {rates}; nothing was timed."
    lines = lines[2:]
    assert lines[1].split("  ")[-1] == "encoder ms per s"
    assert lines[2].split() == ["stock", "11.0", "0", "0.146", "not", "timed"]
    assert lines[3].split()[-4:] == ["10.5", "46", "0.146", "4.2"]
    assert lines[4].split() == ["bad", "failed:", "why"]
    assert len(lines[1]) == len(lines[2]) == len(lines[3])


def test_lengths_and_rows_that_failed() -> None:
    found = report()
    for row in found["rows"][:2]:
        row["encoder_time_by_length"] = {"3": {"median_ms": 2.0}, "10": {"median_ms": 1.0}}
    found["rows"][1]["encoder_time_by_length"]["10"] = {"median_ms": 0.8}
    lines = demo_summary.summary(found).splitlines()
    faster = (
        "makes the encoder 1.25 times as fast on 10 s of audio, but on 3 s of audio it does not"
    )
    assert lines[1].startswith(f"Skipping 46 % of the frames {faster} pay (1.00 times), at")
    assert lines[3].split("  ")[-2:] == ["encoder ms per s at 3 s", "at 10 s"]
    assert lines[5].split()[-2:] == ["2.0", "0.8"]
    found["rows"][1]["status"] = "failed: WER 10.5 %, against 9 % at full depth"
    lines = demo_summary.summary(found).splitlines()
    rates = "10.5 % word errors, against 11.0 % at full depth"
    assert lines[1] == f"Skipping 46 % of the frames costs too much: {rates}."
    assert lines[5].split()[-2:] == ["failed", "failed"]
    assert "ours, skipping on failed: WER 10.5 %, against 9 % at full depth" in lines
    assert lines[-1] == "dump/raw/test: 3 utterances, 15 words, 10 s; a processor, 1 thread"


def benchmark() -> dict[str, Any]:
    ms = {"ours_skip_off": 20, "ours_skip_on": 10, "onnx_skip_off": 8, "onnx_skip_on": 4}
    ms["int8_skip_off"] = 1
    return {
        "rows": [
            {"name": name, "audio_seconds": n, "measured_seconds": 1.01 * n, "wer": 9.1}
            | {"median_s": 1e-3 * n * t, "status": "ok"}
            for name, t in ms.items()
            for n in (10.0, 3.0)
        ]
    }


def test_runtimes() -> None:
    found = benchmark()
    lines = demo_summary.runtimes(found).splitlines()
    assert lines[0].split("  ")[-2:] == ["samples to log-probabilities, ms per s at 3 s", "at 10 s"]
    assert lines[2].split() == ["PyTorch,", "skipping", "on", "9.1", "9.9", "9.9"]
    assert lines[4].split() == ["onnxruntime,", "skipping", "on", "9.1", "4.0", "4.0"]
    assert len(lines) == 5
    for row in found["rows"]:
        if row["name"] == "onnx_skip_on":
            row |= {"wer": None, "median_s": None, "status": "failed: cannot be built: why"}
    lines = demo_summary.runtimes(found).splitlines()
    assert lines[4].split() == ["onnxruntime,", "skipping", "on", "failed", "failed"]
    assert lines[5] == "onnxruntime, skipping on failed: cannot be built: why"


def found_by_the_demo(on_ms: float, **changes: Any) -> dict[str, Any]:
    found = report()
    off, on, _ = found["rows"]
    for row, ms in ((off, 2.0), (on, on_ms)):
        row["encoder_time_by_length"] = {"3": {"median_ms": ms}}
    on |= changes
    return found


def test_what_to_try_next_is_made_from_what_was_found() -> None:
    """Each case has its own command; none writes to what the demo wrote."""
    pays = "transcribe --model exp/ours "
    does_not = "docs/when_does_it_pay.md"
    costs = "--row stricter exp/ours threshold=0.999 extension=1,1 --output exp/compare_stricter"
    commands = [pays, does_not, costs]
    for found, expected in (
        (found_by_the_demo(1.0), pays),
        (found_by_the_demo(2.1), does_not),
        (found_by_the_demo(1.0, status="failed: WER"), costs),
    ):
        text = demo_summary.next_steps(found, None)
        assert [command for command in commands if command in text] == [expected]
        assert "--size medium" not in text
        assert "--blank-threshold" not in text
        assert "onnx" not in text
        found["experiments"] = [
            {"exp": "exp/ours", "chosen": "as configured; calibration says off: the reason"}
        ]
        text = demo_summary.next_steps(found, benchmark())
        assert "full depth: the reason. More speech" in text
        assert ("--blank-threshold 0.9 --spike-extension 0,0 a.wav" in text) == (pays in text)
        assert "onnxruntime is up to 2.50 times as fast" in text
        assert "export --model exp/ours --output exp/ours.onnx" in text


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
    other = tmp_path / "benchmark.json"
    other.write_text(json.dumps(benchmark()))
    monkeypatch.setattr("sys.argv", ["x", str(file), str(other)])
    demo_summary.main()
    assert "onnxruntime, skipping on" in capsys.readouterr().out
    monkeypatch.setattr("sys.argv", ["x", str(file), str(other), "--next"])
    demo_summary.main()
    [step, command] = capsys.readouterr().out.splitlines()  # skipping was not timed
    assert step.startswith("- onnxruntime is up to 2.50 times as fast")
    assert command.startswith("    espnet-layerskip export --model exp/ours")
