"""Chunks in processes: in order, nothing lost, and no process is left behind."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path
from threading import Event

import pytest
from hypothesis import given
from hypothesis import strategies as st

from espnet_layerskip.parallel import Workers, drive, map_chunks, similar_chunks
from tests.support import chunk_functions as functions

TWO = Workers(num=2)
CHUNKS = [[0, 1], [2], [3, 4, 5], [], [6]]
SQUARES = [0, 1, 4, 9, 16, 25, 36]
REPO = Path(__file__).resolve().parents[2]


def until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def alive(pid):
    """True unless the process is gone, or only waits for its parent to take notice."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("workers", [None, TWO, Workers(num=9)])
def test_results_come_in_order(workers, capfd):
    assert list(map_chunks(functions.square_slowly, CHUNKS, workers)) == SQUARES
    assert ("a line" in capfd.readouterr().out) == (workers is None)
    assert list(map_chunks(functions.square_slowly, [], workers)) == []


def test_the_chunk_of_a_dead_worker_is_repeated(tmp_path, caplog):
    function = partial(functions.die_at, tmp_path / "log", 4, 1)
    assert list(map_chunks(function, CHUNKS, TWO)) == SQUARES
    begun = (tmp_path / "log").read_text().split()
    assert sorted(begun) == ["0", "1", "2", "3", "3", "4", "4", "5", "6"]
    assert "a worker died: its 3 item(s) are repeated" in caplog.text


def test_a_worker_that_died_while_it_waited_is_replaced(caplog):
    class Dead:
        def submit(self, *_):
            raise BrokenProcessPool

    with ThreadPoolExecutor(1) as other:
        executors = drive.Executors([Dead()], lambda dead: other, BrokenProcessPool)
        squares = drive.keep_busy(lambda items: [n * n for n in items], CHUNKS, executors, None)
        assert list(squares) == SQUARES
    assert "a worker died: another one takes its place" in caplog.text


def test_it_looks_for_workers_where_nothing_comes(monkeypatch):
    monkeypatch.setattr(drive, "LOOK_SECONDS", 0.02)
    came, looked = Event(), []
    with ThreadPoolExecutor(1) as pool:
        look = lambda: (looked.append(1), came.set())  # noqa: E731
        executors = drive.Executors([pool], None, BrokenProcessPool, look)
        assert list(drive.keep_busy(lambda items: [came.wait(10)], [[1]], executors, None)) == [
            True
        ]
    assert looked


def test_an_item_that_kills_costs_itself_only(tmp_path):
    function = partial(functions.die_at, tmp_path / "log", 4, 99)
    found = list(map_chunks(function, CHUNKS, TWO, lost=lambda item: f"no {item}"))
    assert found == [0, 1, 4, 9, "no 4", 25, 36]
    with pytest.raises(ValueError, match="the worker of 4 died 2 times"):
        list(map_chunks(function, [[4]], TWO))


def test_neighbours_that_kill_cost_themselves_only(tmp_path):
    function = partial(functions.die_at, tmp_path / "log", 4, 99)
    chunks = [[4, 4, 5]]
    found = list(map_chunks(function, chunks, Workers(num=2), functions.no_result))
    assert found == ["no 4", "no 4", 25]


def test_workers_that_only_die_are_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(drive, "GIVE_UP", 2)
    chunks = [[4]] * 20
    function = partial(functions.die_at, tmp_path / "log", 4, 999)
    with pytest.raises(ValueError, match=r"7 workers died one after another .* enough memory"):
        list(map_chunks(function, chunks, TWO, lost=lambda item: None))


def test_an_exception_ends_all(tmp_path):
    function = partial(functions.note_pid_and_fail, tmp_path)
    with pytest.raises(ValueError, match="nothing is done with 7"):
        list(map_chunks(function, [[7]], TWO))
    assert not any(alive(path.name) for path in tmp_path.iterdir())
    with pytest.raises(ValueError, match="too_few.*: 1 results for 2 items"):
        list(map_chunks(functions.too_few, [[1, 2]], TWO))
    with pytest.raises(RuntimeError, match="Odd: no 7"):  # not taken for a death
        list(map_chunks(functions.fail_oddly, [[1], [2]], TWO, lost=lambda item: None))


def test_workers_end_when_nobody_wants_their_results(tmp_path):
    class Enough(Exception):
        pass

    def interrupt(signum, frame):
        raise Enough

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 1.5)  # as Ctrl-C would
        with pytest.raises(Enough):
            list(map_chunks(partial(functions.note_pid_and_sleep, tmp_path), [[1], [2]], TWO))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert not any(alive(path.name) for path in tmp_path.iterdir())


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_workers_end_with_their_parent(tmp_path, how):
    program = f"""
import signal
from functools import partial
from espnet_layerskip.parallel import Workers, map_chunks
from tests.support import chunk_functions
if __name__ == "__main__":
    # a shell's background jobs, and all they start, ignore it
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sleep = partial(chunk_functions.note_pid_and_sleep, {str(tmp_path)!r})
    list(map_chunks(sleep, [[1], [2]], Workers(num=2)))
"""
    (tmp_path / "main.py").write_text(program)
    pids, temporary = tmp_path / "pids", tmp_path / "temporary"
    pids.mkdir()
    temporary.mkdir()
    (tmp_path / "main.py").write_text(program.replace(str(tmp_path), str(pids)))
    parent = subprocess.Popen(
        [sys.executable, tmp_path / "main.py"],
        env={**os.environ, "PYTHONPATH": str(REPO), "TMPDIR": str(temporary)},
        stderr=subprocess.DEVNULL,
    )
    until(lambda: len(list(pids.iterdir())) == 2)
    parent.send_signal(how)
    assert parent.wait(60) != 0
    until(lambda: not any(alive(path.name) for path in pids.iterdir()))
    assert not any(temporary.iterdir()), "what the workers had unpacked"


def test_ctrl_c_is_not_for_workers():
    """From their start on: who presses it early would else see their tracebacks."""
    assert list(map_chunks(functions.hears_interrupts, [[1]], TWO)) == [False]
    assert functions.hears_interrupts([1]) == [True]


def test_a_function_is_loaded_once_in_each_worker_with_its_threads():
    found = list(map_chunks(functions.Loader(), [[i] for i in range(6)], Workers(2, threads=3)))
    loads = {}
    for pid, count, threads in found:
        loads.setdefault(pid, []).append(count)
        assert threads == "3"
    assert 1 <= len(loads) <= 2
    assert os.getpid() not in loads
    assert all(sorted(counts) == list(range(1, len(counts) + 1)) for counts in loads.values())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num": 0}, "--inference_nj must be at least 1, but got 0"),
        ({"threads": 0}, "--num_threads must be at least 1, but got 0"),
        ({"dask": "local", "command": "run.pl", "logdir": "log"}, "choose one"),
        ({"command": "run.pl"}, "--cmd and --logdir belong together"),
        ({"logdir": "log"}, "--cmd and --logdir belong together"),
    ],
)
def test_what_does_not_fit_together(options, message):
    with pytest.raises(ValueError, match=message):
        Workers(**options)


@given(
    st.lists(st.floats(0, 500), max_size=40),
    st.integers(2, 5),
    st.integers(1, 4),
)
def test_chunks_are_the_list_in_pieces(seconds, num, multiple):
    items = list(range(len(seconds)))
    chunks = similar_chunks(items, seconds, Workers(num), multiple)
    assert [item for chunk in chunks for item in chunk] == items
    assert all(chunk for chunk in chunks)
    assert all(chunk[0] % multiple == 0 for chunk in chunks)
    goal = min(120, sum(seconds) / (4 * num))
    for chunk in chunks[:-1]:
        short = chunk[:-multiple] if len(chunk) > multiple else []
        assert sum(seconds[i] for i in short) <= goal
