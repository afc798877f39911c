"""Recipes that are killed, hung up, or started twice: what tools/fault_check.py has found."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from .conftest import TEMPLATE

RUN_JOBS = [sys.executable, "-m", "espnet_layerskip.recipe.run_jobs"]


def wait_for(condition: object, seconds: float = 60.0) -> None:
    until = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < until
        time.sleep(0.05)


def begun(file: Path) -> bool:
    return file.is_file() and bool(file.read_text().strip())


def test_a_hang_up_under_nohup_is_ignored(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [*RUN_JOBS, "x.log", "bash", "-c", "echo 1 > begun; while [ ! -e go ]; do sleep 0.1; done"],
        cwd=tmp_path,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    )
    wait_for(lambda: begun(tmp_path / "begun"))
    process.send_signal(signal.SIGHUP)
    time.sleep(0.2)
    assert process.poll() is None
    (tmp_path / "go").touch()
    assert process.wait(60) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="the system call is Linux's")
def test_jobs_end_when_what_runs_them_is_killed(tmp_path: Path) -> None:
    """Or a training would go on beside the one that is started in its place."""
    process = subprocess.Popen(
        [*RUN_JOBS, "x.log", "bash", "-c", "echo $$ > pid; exec sleep 300"], cwd=tmp_path
    )
    wait_for(lambda: begun(tmp_path / "pid"))
    job = Path("/proc") / (tmp_path / "pid").read_text().strip()
    assert job.exists()
    process.kill()
    process.wait()
    wait_for(lambda: not job.exists(), 5.0)


def test_a_second_run_waits_for_the_first(tmp_path: Path) -> None:
    script = f". {TEMPLATE}/utils/stages.sh; hold exp/x; echo $$ > $1; read -r < $2; echo end $1"
    (tmp_path / "never").touch()
    os.mkfifo(tmp_path / "fifo")
    call = ["bash", "-c", script, "bash"]
    first = subprocess.Popen([*call, "one", "fifo"], cwd=tmp_path)
    wait_for(lambda: begun(tmp_path / "one"))
    second = subprocess.Popen(
        [*call, "two", "never"], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    )
    assert second.stdout is not None
    assert "Another run works on 'exp/x'" in second.stdout.readline()
    assert not (tmp_path / "two").exists()
    first.kill()
    second.communicate(timeout=60)
    assert begun(tmp_path / "two")
    first.wait()


def test_shapes_are_written_in_one_step(tmp_path: Path) -> None:
    """A table that was cut would be a smaller training set."""
    (tmp_path / "shapes").write_text("a 3\nb 4\n")
    script = f". {TEMPLATE}/utils/stages.sh; add_dimension shapes 7 target"
    subprocess.run(["bash", "-c", script], cwd=tmp_path, check=True)
    assert (tmp_path / "target").read_text() == "a 3,7\nb 4,7\n"
    (tmp_path / "target.partial").mkdir()  # stands for a disk on which nothing can be written
    (tmp_path / "shapes").write_text("a 3\n")
    failed = subprocess.run(["bash", "-c", f"set -e; {script}"], cwd=tmp_path, check=False)
    assert failed.returncode != 0
    assert (tmp_path / "target").read_text() == "a 3,7\nb 4,7\n"


@pytest.mark.slow
def test_the_python_of_these_tests_dies_with_its_caller(python: str, tmp_path: Path) -> None:
    code = "import os, time; open('pid', 'w').write(str(os.getpid())); time.sleep(300)"
    process = subprocess.Popen([python, "-c", code], cwd=tmp_path)
    wait_for(lambda: begun(tmp_path / "pid"))
    process.kill()
    process.wait()
    job = Path("/proc") / (tmp_path / "pid").read_text()
    wait_for(lambda: not job.exists(), 10.0)
