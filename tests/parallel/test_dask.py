"""Chunks on a Dask cluster: the same results, and dead workers replaced."""

import contextlib
import logging
from concurrent.futures import Future
from functools import partial
from types import SimpleNamespace

import pytest

from espnet_layerskip.parallel import Workers, executors, map_chunks
from tests.parallel.test_map_chunks import CHUNKS, SQUARES
from tests.support import chunk_functions as functions

LOCAL = Workers(num=2, dask="local")


def test_what_is_missing_is_said(monkeypatch):
    def missing(name):
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(executors, "import_module", missing)
    with pytest.raises(ValueError, match=r"needs the package distributed \(the extra dask\)"):
        list(map_chunks(functions.too_few, [[1]], LOCAL))


def test_a_scheduler_that_ends_is_said(monkeypatch, caplog):
    """Dask cancels what it was given, and may be without workers for a while."""

    class Client(contextlib.nullcontext):
        def __init__(self, address, timeout):
            self.enter_result = self

        def nthreads(self):
            return {}

        def get_executor(self, pure):
            return self

        def submit(self, *_):
            future = Future()
            future.cancel()
            future.set_running_or_notify_cancel()
            return future

        def shutdown(self, wait):
            assert not wait

    def start(**_):
        assert functions.hears_interrupts([1]) == [False], "its processes inherit that"
        return contextlib.nullcontext("tcp://x:1")

    fake = SimpleNamespace(Client=Client, KilledWorker=KeyError, LocalCluster=start)
    monkeypatch.setattr(executors, "import_module", lambda _: fake)
    for workers in (Workers(dask="tcp://x:1"), LOCAL):
        with pytest.raises(ValueError, match=f"--dask {workers.dask}: the scheduler has ended"):
            list(map_chunks(functions.too_few, [[1]], workers))
    assert "no worker is there; waiting for one" in caplog.text


@pytest.mark.slow
class TestCluster:
    @pytest.fixture(scope="class", autouse=True)
    def dask(self):
        distributed = pytest.importorskip("distributed")
        before = logging.getLogger("distributed").level
        yield distributed
        logging.getLogger("distributed").setLevel(before)

    @pytest.fixture(scope="class")
    def running(self, dask):
        """A cluster of two workers that runs already."""
        options = {
            "threads_per_worker": 1,
            "dashboard_address": None,
            "silence_logs": logging.ERROR,
        }
        with dask.LocalCluster(n_workers=2, **options) as it:
            yield Workers(dask=it.scheduler_address)

    def test_results_are_those_of_one_process(self, capfd):
        assert list(map_chunks(functions.square_slowly, CHUNKS, LOCAL)) == SQUARES
        captured = capfd.readouterr()
        assert captured.out == ""
        assert "INFO" not in captured.err

    def test_a_function_is_loaded_anew_by_each_run(self, running):
        for _ in range(2):
            found = list(map_chunks(functions.Loader(), [[1], [2], [3]], running))
            loads = [loads for _, loads, _ in found]
            assert sorted(loads) in ([1, 2, 3], [1, 1, 2])

    def test_an_exception_is_raised_here(self, running, tmp_path):
        function = partial(functions.note_pid_and_fail, tmp_path)
        with pytest.raises(ValueError, match="nothing is done with 7"):
            list(map_chunks(function, [[7]], running))

    def test_the_chunk_of_a_dead_worker_is_repeated(self, running, tmp_path):
        function = partial(functions.die_at, tmp_path / "log", 4, 1)
        assert list(map_chunks(function, CHUNKS, running)) == SQUARES
        assert (tmp_path / "log").read_text().split().count("4") == 2

    def test_no_scheduler_is_there(self, monkeypatch):
        monkeypatch.setattr(executors, "CONNECT_SECONDS", 1)
        with pytest.raises(ValueError, match="--dask tcp://127.0.0.1:9: no scheduler can be"):
            list(map_chunks(functions.too_few, [[1]], Workers(dask="tcp://127.0.0.1:9")))
