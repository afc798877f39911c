"""Workers as concurrent.futures has them: processes here, and a Dask cluster."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from importlib import import_module
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

from espnet_layerskip._late_imports import start_sooner
from espnet_layerskip.parallel.drive import Executors
from espnet_layerskip.parallel.workers import Workers

CONNECT_SECONDS = 30
AHEAD = 64
"""So many chunks a Dask cluster is given at once, or four a thread: results wait in memory."""

OURS_ALONE = (
    "from espnet_layerskip._late_imports import start_sooner\nstart_sooner(check_types=False)\n"
)
"""What the workers of a cluster of ours do first, as other processes of ours do."""


def _join_life(lifeline: Connection) -> None:
    """Let this worker end as soon as the other end of the pipe is closed, and not by Ctrl-C."""
    start_sooner(check_types=False)
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        with contextlib.suppress(EOFError, OSError):
            lifeline.recv()
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
        made.append(ProcessPoolExecutor(1, context, initializer=_join_life, initargs=(theirs,)))
        return made[-1]

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
        # It reports each step of a start and an end; of a cluster that ends here nothing matters.
        level = logging.ERROR if address == "local" else logging.WARNING
        logging.getLogger("distributed").setLevel(level)
        if address == "local":
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
            raise ValueError(f"--dask {address}: no scheduler can be reached ({error})") from error
        executor = client.get_executor(pure=False)
        try:
            ahead = max(AHEAD, 4 * sum(client.nthreads().values()))
            free = [executor] * min(num_chunks, ahead)
            yield Executors(free, lambda same: same, dask.KilledWorker)
        finally:
            executor.shutdown(wait=False)
