"""conf/slurm.conf: what srun is told, and what is wrong in it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from espnet_layerskip.recipe import run_jobs
from espnet_layerskip.recipe.slurm import srun_words

from .conftest import TEMPLATE

CONF = TEMPLATE / "conf/slurm.conf"
START = ["srun", "--export=ALL", "--ntasks=1"]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "-p cpu"),
        ({"gpu": "0"}, "-p cpu"),
        ({"gpu": "2"}, "-p gpu --gres=gpu:2"),
        ({"gpu": "0", "mem": "4G", "time": "1:00:00"}, "-p cpu --mem-per-cpu 4G --time 1:00:00"),
        ({"num_threads": "3", "name": "x"}, "-p cpu --cpus-per-task 3 --job-name x"),
    ],
)
def test_options_of_the_template(given: dict[str, str], words: str) -> None:
    assert srun_words(CONF, given) == [*START, *words.split()]


def test_espnets_own_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "slurm.conf").write_text(
        "# Default configuration\ncommand sbatch --export=PATH\noption name=* --job-name $0\n"
        "option mem=0\noption mem=* --mem-per-cpu $0\n\ndefault gpu=0\n"
        "option gpu=0 -p cpu\noption gpu=* -p gpu --gres=gpu:$0 -c $0  # a comment\n"
    )
    words = srun_words(tmp_path / "slurm.conf", {"gpu": "1", "mem": "0"})
    assert words == ["srun", "--export=PATH", "-p", "gpu", "--gres=gpu:1", "-c", "1"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("option gpu --gres", r"slurm.conf:1: 'option gpu --gres': a line is 'command srun"),
        ("command", r"slurm.conf:1: 'command'"),
        ("queue long", r"slurm.conf:1: 'queue long'"),
        ("option mem=* -m $0", r"no line 'option gpu=1' or 'option gpu=\*'"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "slurm.conf").write_text(f"{line}\n")
    with pytest.raises(ValueError, match=message):
        srun_words(tmp_path / "slurm.conf", {"gpu": "1"})


def test_jobs_go_through_it(tmp_path: Path) -> None:
    args = ["--config", str(CONF), "--gpu", "1", "JOB=1:2", f"{tmp_path}/x.JOB.log", "echo", "JOB"]
    jobs = run_jobs.make_jobs(run_jobs.get_parser().parse_args(args))
    assert [job.command for job in jobs] == [["echo", "1"], ["echo", "2"]]
    assert jobs[1].launcher == [*START, "-p", "gpu", "--gres=gpu:1"]
    jobs[1].launcher = ["env", "X=1", "bash", "-c", 'echo "$X $*"', "-"]
    assert run_jobs.run_jobs(jobs[1:], 1, run_jobs.Runner()) == []
    assert "\n1 echo 2\n" in (tmp_path / "x.2.log").read_text()


@pytest.mark.parametrize(("retries", "runs"), [(0, 1), (1, 2)])
def test_a_job_that_was_killed_is_run_again(tmp_path: Path, retries: int, runs: int) -> None:
    kill = f'echo x >> {tmp_path}/runs; [ "$(wc -l < {tmp_path}/runs)" -gt 1 ] || kill -9 $$'
    job = run_jobs.Job("1", ["bash", "-c", kill], tmp_path / "log")
    failed = run_jobs.run_jobs([job], 1, run_jobs.Runner(retries=retries))
    assert len((tmp_path / "runs").read_text().split()) == runs
    assert bool(failed) == (retries == 0)


def test_a_job_that_failed_by_itself_is_not(tmp_path: Path) -> None:
    job = run_jobs.Job("1", ["bash", "-c", f"echo x >> {tmp_path}/runs; exit 1"], tmp_path / "log")
    assert run_jobs.run_jobs([job], 1, run_jobs.Runner(retries=3)) == [job]
    assert (tmp_path / "runs").read_text() == "x\n"


@pytest.mark.parametrize("own", [False, True])
def test_cmd_sh_chooses_the_backend(tmp_path: Path, own: bool) -> None:
    (tmp_path / "cmd.sh").symlink_to(TEMPLATE / "cmd.sh")
    if own:
        (tmp_path / "conf").mkdir()
        (tmp_path / "conf/slurm.conf").write_text("command srun\n")

    def source(backend: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-c", "set -eu; . ./cmd.sh; echo $decode_cmd"],
            cwd=tmp_path,
            env=os.environ | {"cmd_backend": backend, "python": sys.executable},
            capture_output=True,
            text=True,
            check=False,
        )

    run = f"{sys.executable} -m espnet_layerskip.recipe.run_jobs"
    assert source("local").stdout == f"{run}\n"
    conf = "conf/slurm.conf" if own else CONF
    assert source("slurm").stdout == f"{run} --config {conf}\n"
    wrong = source("sge")
    assert wrong.returncode == 2
    assert "cmd_backend 'sge': choose local or slurm" in wrong.stderr
