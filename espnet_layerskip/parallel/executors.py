"""Workers as concurrent.futures has them: processes here, and a Dask cluster."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError, Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from importlib import import_module
from multiprocessing import get_context, resource_tracker
from multiprocessing.connection import Connection
from typing import Any

from espnet_layerskip._late_imports import start_sooner
from espnet_layerskip.parallel.drive import Executors
from espnet_layerskip.parallel.workers import Workers

logger = logging.getLogger(__name__)
CONNECT_SECONDS = 30
AHEAD = 64
"""So many chunks a Dask cluster is given at once, or four a thread: results wait in memory."""

OURS_ALONE = (
    "from espnet_layerskip._late_imports import start_sooner\nstart_sooner(check_types=False)\n"
)
"""What the workers of a cluster of ours do first, as other processes of ours do."""


@contextlib.contextmanager
def deaf_to_interrupts() -> Iterator[None]:
    """Let processes that start inside the block not be ended by Ctrl-C: this one ends them."""
    resource_tracker.ensure_running()  # it lets the signal through where it starts
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Processes(ProcessPoolExecutor):
    def submit(self, *args: Any, **kwargs: Any) -> Future[Any]:
        """Start a process if there is none yet, and give it some work."""
        with deaf_to_interrupts():
            return super().submit(*args, **kwargs)


def _join_life(lifeline: Connection, folder: str) -> None:
    """Let this worker end as soon as the other end of the pipe is closed.

    Args:
        lifeline: The pipe.
        folder: Of its temporary files; goes with it if the process that made it was killed.
    """
    start_sooner(check_types=False)
    tempfile.tempdir = folder

    def watch() -> None:
        with contextlib.suppress(EOFError, OSError):
            lifeline.recv()
        shutil.rmtree(folder, ignore_errors=True)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextlib.contextmanager
def process_executors(workers: Workers, num_chunks: int) -> Iterator[Executors]:
    """One executor of one process each: if it breaks, it is known which chunk it had."""
    context = get_context("spawn")
    theirs, ours = context.Pipe(duplex=False)
    made: list[Executor] = []

    def make(dead: Executor | None = None) -> Executor:
        if dead is not None:
            made.remove(dead)
            dead.shutdown(wait=False)
        made.append(_Processes(1, context, initializer=_join_life, initargs=(theirs, folder)))
        return made[-1]

    with tempfile.TemporaryDirectory(prefix="espnet_layerskip_") as folder:
        try:
            free = [make() for _ in range(min(workers.num, num_chunks))]
            yield Executors(free, make, BrokenProcessPool)
        finally:
            ours.close()  # the lifeline of all of them
            for executor in made:
                executor.shutdown(cancel_futures=True)
            theirs.close()


@contextlib.contextmanager
def dask_executors(workers: Workers, num_chunks: int) -> Iterator[Executors]:
    """Dask's executor, which takes many chunks at once and repeats those of dead workers itself."""
    try:
        dask: Any = import_module("distributed")
    except ImportError as error:
        raise ValueError(
            f"--dask needs the package distributed (the extra dask), but: {error}"
        ) from error
    with contextlib.ExitStack() as stack:
        address: Any = workers.dask
        said = f"--dask {address}"
        # It reports each step of a start and an end; of a cluster that ends here nothing matters.
        level = logging.ERROR if address == "local" else logging.WARNING
        logging.getLogger("distributed").setLevel(level)
        if address == "local":
            with deaf_to_interrupts():
                cluster = dask.LocalCluster(
                    n_workers=workers.num,
                    threads_per_worker=1,
                    dashboard_address=None,
                    silence_logs=level,
                    preload=OURS_ALONE,
                )
            address = stack.enter_context(cluster)
        try:
            client = stack.enter_context(dask.Client(address, timeout=CONNECT_SECONDS))
        except (OSError, ValueError) as error:
            raise ValueError(f"{said}: no scheduler can be reached ({error})") from error

        def look() -> int:
            threads: int = sum(client.nthreads().values())
            if not threads:
                logger.warning("%s: no worker is there; waiting for one", said)
            return threads

        executor = client.get_executor(pure=False)
        try:
            free = [executor] * min(num_chunks, max(AHEAD, 4 * look()))
            yield Executors(free, lambda same: same, dask.KilledWorker, look)
        except CancelledError as error:
            logging.getLogger("distributed.client").setLevel(logging.CRITICAL)  # tracebacks
            raise ValueError(
                f"{said}: the scheduler has ended, or cannot be reached any more: run it again"
            ) from error
        finally:
            executor.shutdown(wait=False)
