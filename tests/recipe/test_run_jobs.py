"""Parallel jobs: logs, failures, and jobs that are done already."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from espnet_layerskip.files import write_table
from espnet_layerskip.recipe import run_jobs
from espnet_layerskip.recipe.merge_outputs import merge_outputs
from espnet_layerskip.recipe.split_scp import split_lines


def start(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "espnet_layerskip.recipe.run_jobs", *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_job_is_replaced_in_the_log_and_the_command(tmp_path: Path) -> None:
    done = start("--gpu", "0", "JOB=1:3", f"{tmp_path}/x.JOB.log", "echo", "part JOB")
    assert done.returncode == 0, done.stderr
    for n in (1, 2, 3):
        assert f"part {n}\n" in (tmp_path / f"x.{n}.log").read_text()


def test_without_a_range_job_is_no_more_than_three_letters(tmp_path: Path) -> None:
    done = start("--done", f"{tmp_path}/JOB.json", f"{tmp_path}/JOB.log", "echo", "/JOB42/x")
    assert done.returncode == 0, done.stderr
    assert "/JOB42/x\n" in (tmp_path / "JOB.log").read_text()
    assert (tmp_path / "JOB.json").exists()


def test_jobs_may_have_names(tmp_path: Path) -> None:
    done = start("JOB=stock,ours", f"{tmp_path}/x.JOB.log", "echo", "system JOB")
    assert done.returncode == 0, done.stderr
    for name in ("stock", "ours"):
        assert f"system {name}\n" in (tmp_path / f"x.{name}.log").read_text()


def test_a_full_disk_is_said(tmp_path: Path) -> None:
    message = "OSError: [Errno 28] No space left on device"
    done = start(f"{tmp_path}/x.log", "bash", "-c", f"echo '{message}'; exit 1")
    assert "the disk is full: free some space, then run it again" in done.stderr


def test_a_job_whose_output_is_gone_is_done_again(tmp_path: Path) -> None:
    made = tmp_path / "made"
    options = ["--done", f"{tmp_path}/done", "--makes", str(made), f"{tmp_path}/x.log"]
    for wanted in (0, 1):
        done = start(*options, "touch", str(made))
        assert f"{wanted} of 1 job(s) are done" in done.stdout or not wanted
    made.unlink()
    start(*options, "touch", str(made))
    assert made.exists()


def test_jobs_end_with_the_script_that_started_them(tmp_path: Path) -> None:
    command = "echo $$ > pid; sleep 300"
    script = f"{sys.executable} -m espnet_layerskip.recipe.run_jobs x.log bash -c '{command}'; true"
    process = subprocess.Popen(["bash", "-c", script], cwd=tmp_path)
    until = time.monotonic() + 60
    while not ((tmp_path / "pid").is_file() and (tmp_path / "pid").read_text().strip()):
        assert time.monotonic() < until
        time.sleep(0.05)
    job = Path("/proc") / (tmp_path / "pid").read_text().strip()
    assert job.exists()
    process.kill()
    process.wait()
    while job.exists():
        assert time.monotonic() < until
        time.sleep(0.05)


def test_a_failed_job_fails_the_run_and_names_its_log(tmp_path: Path) -> None:
    command = 'echo begin; if [ JOB = 2 ]; then echo "the reason" >&2; exit 7; fi'
    done = start("JOB=1:2", f"{tmp_path}/x.JOB.log", "bash", "-c", command)
    assert done.returncode == 1
    assert "job 2 failed with status 7" in done.stderr
    assert "the reason" in done.stderr
    assert f"full log: {tmp_path}/x.2.log" in done.stderr
    assert "# Ended (code 0)" in (tmp_path / "x.1.log").read_text()
    missing = start(f"{tmp_path}/y.log", "no-such-command-here")
    assert missing.returncode == 1
    assert "status 127" in missing.stderr


def test_lines_of_progress_are_shown(tmp_path: Path) -> None:
    done = start("--show", "epoch results", f"{tmp_path}/x.log", "printf", "a\n1epoch results: b\n")
    assert "1epoch results: b" in done.stdout
    assert "\na\n" not in done.stdout
    assert "a\n1epoch results: b\n" in (tmp_path / "x.log").read_text()


def test_what_is_done_is_skipped_until_its_input_changes(tmp_path: Path) -> None:
    keys, output = tmp_path / "keys", tmp_path / "output"
    keys.write_text("a\n")
    output.mkdir()
    (output / "stale").touch()

    def run(word: str = "x") -> int:
        job = run_jobs.Job(
            name="1",
            command=["bash", "-c", f"mkdir -p {output}; echo {word} >> {tmp_path}/runs"],
            log=tmp_path / "log",
            done=tmp_path / "done.json",
            fresh=output,
            depends=[keys, tmp_path / "absent"],
        )
        assert run_jobs.run_jobs([job], 1, run_jobs.Runner()) == []
        return len((tmp_path / "runs").read_text().split())

    assert run() == 1
    assert not (output / "stale").exists()
    assert run() == 1
    keys.write_text("b\n")
    assert run() == 2
    assert run("y") == 3
    (tmp_path / "done.json").write_text("{broken")
    assert run("y") == 4


def test_logs_are_rotated(tmp_path: Path) -> None:
    for n in range(4):
        log = tmp_path / "train.log"
        run_jobs.rotate(log, 2)
        log.write_text(str(n))
    found = {p.name: p.read_text() for p in tmp_path.iterdir()}
    assert found == {"train.log": "3", "train.1.log": "2", "train.2.log": "1"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["JOB=2:1", "x.JOB.log", "true"], "range of jobs is empty"),
        (["JOB=a,,b", "x.JOB.log", "true"], "range of jobs is empty"),
        (["JOB=1:2", "x.log", "true"], "the jobs would share this log"),
        (["x.log"], "needed: "),
        ([], "needed: "),
    ],
)
def test_bad_command_lines(words: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run_jobs.make_jobs(run_jobs.get_parser().parse_args(words))


def test_splits_are_contiguous_and_even() -> None:
    parts = split_lines([str(i) for i in range(10)], 4)
    assert [len(p) for p in parts] == [3, 3, 2, 2]
    assert [line for part in parts for line in part] == [str(i) for i in range(10)]
    with pytest.raises(ValueError, match=r"cannot split 2 line\(s\) into 3"):
        split_lines(["a", "b"], 3)


def test_merged_parts_are_sorted_and_the_missing_named(tmp_path: Path) -> None:
    write_table(tmp_path / "keys", {"b": "1", "a": "2", "c": "3"})
    write_table(tmp_path / "p1/1best_recog/text", {"b": "TWO"})
    write_table(tmp_path / "p2/1best_recog/text", {"a": ""})
    write_table(tmp_path / "p1/skip_stats", {"b": "10 4"})
    (tmp_path / "p2/1best_recog/score").touch()
    missing = merge_outputs([tmp_path / "p1", tmp_path / "p2"], tmp_path / "keys", tmp_path / "out")
    assert missing == ["c"]
    assert (tmp_path / "out/text").read_text() == "a\nb TWO\n"
    assert (tmp_path / "out/skip_stats").read_text() == "b 10 4\n"
    assert not (tmp_path / "out/score").exists()
