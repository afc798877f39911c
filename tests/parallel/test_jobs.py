"""Chunks as batch jobs: files in a shared directory, and jobs that are started again."""

import shlex
import sys
from functools import partial

import pytest

from espnet_layerskip.parallel import Workers, map_chunks
from tests.parallel.test_map_chunks import CHUNKS, REPO, SQUARES
from tests.support import chunk_functions as functions

RUN_JOBS = f"{shlex.quote(sys.executable)} -m espnet_layerskip.recipe.run_jobs"
pytestmark = pytest.mark.slow  # programs that start programs


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(REPO))


def by(command, directory, num=2):
    return Workers(num=num, command=command, logdir=str(directory / "log"))


def test_results_are_those_of_one_process(tmp_path, capfd):
    found = list(map_chunks(functions.square_slowly, CHUNKS, by(RUN_JOBS, tmp_path)))
    assert found == SQUARES
    assert capfd.readouterr().out == ""
    assert {p.name for p in (tmp_path / "log").iterdir()} == {"job.1.log", "job.2.log"}
    assert "done" in (tmp_path / "log/job.1.log").read_text()


def test_an_item_that_kills_costs_itself_only(tmp_path):
    function = partial(functions.die_at, tmp_path / "begun", 4, 99)
    found = list(map_chunks(function, CHUNKS, by(RUN_JOBS, tmp_path), functions.no_result))
    assert found == [0, 1, 4, 9, "no 4", 25, 36]


def test_a_lost_job_is_repeated_without_what_it_had_done(tmp_path, caplog):
    """The runner loses its second job, once: the node is gone."""
    lossy = tmp_path / "lossy.sh"
    lossy.write_text(
        f'if [ ! -e {tmp_path}/lost ] && [ "$1" = JOB=1:2 ]; then\n'
        f'  touch {tmp_path}/lost; shift; set -- JOB=1:1 "$@"\nfi\n'
        f'exec {RUN_JOBS} "$@"\n'
    )
    function = partial(functions.die_at, tmp_path / "begun", None, 0)
    found = list(map_chunks(function, CHUNKS, by(f"bash {lossy}", tmp_path)))
    assert found == SQUARES
    assert "2 chunk(s) have no result (status 0)" in caplog.text
    assert sorted((tmp_path / "begun").read_text().split()) == list("0123456")


def test_an_exception_in_a_job_is_raised_here(tmp_path):
    function = partial(functions.note_pid_and_fail, tmp_path)
    with pytest.raises(ValueError, match="nothing is done with 7"):
        list(map_chunks(function, [[7]], by(RUN_JOBS, tmp_path)))


def test_a_runner_that_does_nothing_is_given_up(tmp_path):
    with pytest.raises(ValueError, match=r"1 of 1 chunk\(s\) have no result after 2 tries of 'tr"):
        list(map_chunks(functions.too_few, [[1]], by("true", tmp_path)))
    with pytest.raises(ValueError, match="--cmd no-such-runner -q: cannot be run"):
        list(map_chunks(functions.too_few, [[1]], by("no-such-runner -q", tmp_path)))
