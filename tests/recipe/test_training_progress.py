"""The line on trainings that run, from logs as ESPnet writes them."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pytest

from espnet_layerskip.recipe import training_progress
from espnet_layerskip.recipe.training_progress import TrainingState, progress_line, read_state

SAMPLER = "[host] 2026-01-02 10:00:00,100 (abs_task:1885) INFO: [{}] Batch sampler: {}\n"
HEAD = SAMPLER.format("train", "NumElementsBatchSampler(N-batch=100, batch_bins=640000)")
HEAD += SAMPLER.format("valid", "NumElementsBatchSampler(N-batch=7, batch_bins=640000)")
RESUMED = "[host] 2026-01-02 10:00:00,300 (trainer:336) INFO: 3/6epoch started\n"
BATCHES = (
    "[host] 2026-01-02 10:00:{:02d},811 (trainer:811) INFO: {}epoch:train:1-{}batch: loss=1.5\n"
)
RESULTS = (
    "[host] 2026-01-02 10:01:00,900 (trainer:394) INFO: 3epoch results: [train] loss=10.0, "
    "time=60 seconds, total_count=300, [valid] loss_ctc=16.5, cer_ctc=0.238, cer_ctc_skip=0.310\n"
    "[host] 2026-01-02 10:01:00,950 (trainer:324) INFO: 4/6epoch started. Estimated time to "
    "finish: 3 minutes\n"
)


def at(minute: int, second: int) -> datetime:
    return datetime(2026, 1, 2, 10, minute, second)


def test_nothing_is_known_before_the_first_epoch() -> None:
    assert read_state("", at(0, 0)) == TrainingState()
    assert read_state(HEAD, at(0, 9)).describe() == "starting"
    state = read_state(HEAD + RESUMED, at(0, 9))
    assert (state.epoch, state.max_epoch, state.seconds_left) == (3, 6, None)


def test_the_time_left_within_the_first_epoch() -> None:
    # 25 of 400 updates in 15 s
    state = read_state(HEAD + RESUMED + BATCHES.format(15, 3, 25), at(0, 15))
    assert state.describe() == "epoch 3 of 6"
    assert state.seconds_left == pytest.approx(225.0)
    later = read_state(HEAD + RESUMED + BATCHES.format(15, 3, 25), at(0, 25))
    assert later.seconds_left == pytest.approx(215.0)


def test_the_error_rate_after_an_epoch_and_the_time_left() -> None:
    state = read_state(HEAD + RESUMED + BATCHES.format(15, 3, 25) + RESULTS, at(1, 0))
    assert state.describe() == "epoch 4 of 6, dev CER 23.8 %"
    assert state.seconds_left == pytest.approx(180.0)


def test_a_finished_training() -> None:
    end = "[host] 2026-01-02 10:05:00,900 (trainer:534) INFO: The training was finished at 6 epochs"
    state = read_state(HEAD + RESUMED + RESULTS + end, at(6, 0))
    assert state.finished
    assert state.describe() == "finished, dev CER 23.8 %"


def test_the_line_has_the_time_of_the_slowest() -> None:
    fast = TrainingState(5, 6, 0.2, 50.0)
    slow = TrainingState(4, 6, None, 200.0)
    done = TrainingState(6, 6, 0.1, 0.0, True)
    line = "a: epoch 5 of 6, dev CER 20.0 %; b: epoch 4 of 6; about 3 min left"
    assert progress_line({"a": fast, "b": slow}) == line
    assert progress_line({"a": done, "b": done}) == "a: finished, dev CER 10.0 %; b: " + (
        "finished, dev CER 10.0 %"
    )
    assert progress_line({"a": fast, "b": TrainingState()}).endswith("b: starting")


def test_the_command_reads_the_logs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "asr_a").mkdir()
    (tmp_path / "asr_a/train.log").write_text(HEAD + RESUMED)
    monkeypatch.setattr("sys.argv", ["x", str(tmp_path / "asr_a"), str(tmp_path / "asr_b")])
    training_progress.main()
    assert capsys.readouterr().out == "a: epoch 3 of 6; b: starting\n"
