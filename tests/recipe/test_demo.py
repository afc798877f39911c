"""The demo's steps: their order, going on after a stop, nothing done twice. No training here."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from .conftest import REPO
from .test_demo_summary import benchmark, report

RECIPE = REPO / "egs2/espeak/asr1"
RUN_SH = """#!/usr/bin/env bash
set -e
echo "run.sh $*" >> calls
case "$*" in *"${FAIL:-nothing}"*) echo "the reason"; exit 1 ;; esac
case "$*" in
    *"--stop_stage 5"*) mkdir -p dump/raw/test; touch dump/raw/test/wav.scp ;;
    *"--stop_stage 10"*) mkdir -p exp/asr_stats_raw_en_word/train
        touch exp/asr_stats_raw_en_word/train/feats_stats.npz ;;
    *"--asr_tag"*) tag=$(sed -E 's/.*--asr_tag ([a-z]+).*/\\1/' <<< "$*")
        mkdir -p "exp/asr_${tag}"
        touch "exp/asr_${tag}/"{valid.cer_ctc.ave.pth,RESULTS.md,checkpoint.pth,1epoch.pth} ;;
esac
"""
PYTHON = """#!/usr/bin/env bash
set -e
case "$*" in
    *espnet_layerskip.recipe.*) exec PYTHON "$@" ;;
    *" retrofit "*) echo "retrofit $*" >> calls; mkdir -p exp/asr_retrofit
        touch exp/asr_retrofit/{retrofit.json,calibration.json} ;;
    *" calibrate "*) echo calibrate >> calls
        echo another > exp/asr_retrofit/calibration.json; exit 3 ;;
    *compare_exps*) echo compare >> calls; mkdir -p exp/compare
        echo 'row: stock'; cp compare.json exp/compare ;;
    *" benchmark "*) echo runtimes >> calls; mkdir -p exp/benchmark
        cp benchmark.json exp/benchmark ;;
    *" report "*) echo report >> calls; mkdir -p exp/report; touch exp/report/index.html ;;
    *) exec PYTHON "$@" ;;
esac
"""
STEPS = ["--stop_stage 5", "--stage 10", "--stage 11", "retrofit", "calibrate"]
STEPS += ["--stage 12", "--stage 12", "compare", "runtimes", "report"]

pytestmark = pytest.mark.slow  # starts a process for each step


@pytest.fixture
def demo(tmp_path: Path, python: str) -> Path:
    """Return a recipe directory whose stages only leave the files that they would make."""
    for name in ("path.sh", "utils", "local", "demo.sh"):
        (tmp_path / name).symlink_to(RECIPE / name)
    shutil.copytree(RECIPE / "conf", tmp_path / "conf")
    (tmp_path / "compare.json").write_text(json.dumps(report()))
    (tmp_path / "benchmark.json").write_text(json.dumps(benchmark()))
    for name, text in (("run.sh", RUN_SH), ("python", PYTHON.replace("PYTHON", python))):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    return tmp_path


def run(directory: Path, *options: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["./demo.sh", "--python", str(directory / "python"), *options],
        cwd=directory,
        env=os.environ | env,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def calls(directory: Path) -> list[str]:
    return (directory / "calls").read_text().splitlines()


def test_it_runs_through_and_a_second_run_does_nothing_again(demo: Path) -> None:
    first = run(demo)
    assert first.returncode == 0, first.stdout + first.stderr
    assert all(step in call for step, call in zip(STEPS, calls(demo), strict=True)), calls(demo)
    train, retrofit = calls(demo)[2:4]
    assert "--asr_config conf/train_asr_conformer.yaml --asr_tag conformer" in train
    assert "--model exp/asr_conformer" in retrofit
    assert "--force" not in retrofit, "one that was interrupted goes on"
    decoded = sorted(call.split("--asr_tag ")[1] for call in calls(demo)[5:7])
    assert decoded == [
        "conformer --inference_nj 1 --inference_asr_model valid.cer_ctc.ave.pth",
        "retrofit --inference_nj 1 --inference_asr_model valid.loss.best.pth",
    ]
    assert "[demo]" in first.stdout
    assert "    measuring: stock" in first.stdout
    assert "ours, skipping on" in first.stdout
    assert "onnxruntime, skipping on" in first.stdout
    assert f"The report: {demo}/exp/report/index.html" in first.stdout
    assert "What to try next" in first.stdout

    second = run(demo)
    assert second.returncode == 0, second.stdout + second.stderr
    assert len(calls(demo)) == len(STEPS)
    assert "ours, skipping on" in second.stdout
    assert f"The report: {demo}/exp/report/index.html" in second.stdout


def test_a_step_that_fails_says_why_and_the_next_run_goes_on_there(demo: Path) -> None:
    failed = run(demo, FAIL="--asr_tag retrofit")
    assert failed.returncode == 1
    assert "the reason" in failed.stderr
    assert "full log: exp/demo/decode.retrofit.log" in failed.stderr
    assert "stopped in step 6/9; 'make demo' goes on from here" in failed.stderr
    assert len(calls(demo)) == 7
    again = run(demo)
    assert again.returncode == 0, again.stdout + again.stderr
    assert [c for c in calls(demo)[7:] if "--stage" in c] == [
        c for c in calls(demo)[5:7] if "retrofit" in c
    ], "what was decoded is not decoded again"
    assert len(calls(demo)) == len(STEPS) + 1


def test_what_is_gone_or_changed_is_made_again(demo: Path) -> None:
    assert run(demo).returncode == 0
    (demo / "exp/report/index.html").unlink()
    assert run(demo).returncode == 0
    assert calls(demo)[len(STEPS) :] == ["report"]
    (demo / "exp/asr_retrofit/calibration.json").write_text("another setting")
    assert run(demo).returncode == 0
    assert len(calls(demo)) == len(STEPS) + 1 + 5, "what comes after the calibration"
    config = demo / "conf/train_asr_conformer.yaml"
    config.write_text(config.read_text() + "\n")
    assert run(demo).returncode == 0
    assert len(calls(demo)) == 2 * len(STEPS) + 1 + 5
    assert "--force" in calls(demo)[len(STEPS) + 1 + 5 + 3], "the old retrofit is replaced"


def test_two_at_a_time_are_refused(demo: Path) -> None:
    (demo / "exp/demo").mkdir(parents=True)
    with (demo / "exp/demo/lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        refused = run(demo)
    assert refused.returncode == 1
    assert "another demo runs in this directory" in refused.stderr


def test_make_demo_calls_it_with_the_environments_python() -> None:
    done = subprocess.run(
        ["make", "-n", "demo", "VENV=some/venv", "DEMO_ARGS=--size smoke", "PYTHON="],
        cwd=REPO,
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"./demo.sh --python '{REPO}/some/venv/bin/python' --size smoke" in done.stdout
