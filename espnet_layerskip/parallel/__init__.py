"""Run a function over a list in many processes, here or on a cluster: in order, nothing lost.

A list is cut into chunks, and a chunk is what a process is given. A process that dies (killed, out
of memory, a lost node) costs time only: its chunk is repeated.
"""

from __future__ import annotations

import pickle
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from espnet_layerskip.parallel.drive import Call, keep_busy
from espnet_layerskip.parallel.executors import dask_executors, process_executors
from espnet_layerskip.parallel.jobs import map_by_jobs
from espnet_layerskip.parallel.workers import (
    Workers,
    add_worker_options,
    similar_chunks,
    workers_from,
)

__all__ = ["Workers", "add_worker_options", "map_chunks", "similar_chunks", "workers_from"]

T = TypeVar("T")
R = TypeVar("R")


def map_chunks(
    function: Callable[[Sequence[T]], Iterable[R]],
    chunks: Sequence[Sequence[T]],
    workers: Workers | None = None,
    lost: Callable[[T], R] | None = None,
) -> Iterator[R]:
    """Yield what ``function`` gives for the items of all chunks, in their order.

    A chunk whose worker dies is repeated, by another worker; if its worker dies again, its items
    are run one by one, so that an item which kills its worker costs no other item. Workers end
    when the iteration does, whether at its end, by an error or Ctrl-C, and when this process is
    killed.

    Args:
        function: Called with a chunk, gives one result for each of its items. Anything that can
            be pickled: a function at the top of a module, ``functools.partial``, or an object
            with ``__call__`` whose class is at the top of a module. Each worker unpickles it
            once, so such an object may load a model at its first call and keep it. Results are
            pickled too. What it prints goes to stderr. Bad input is its own to handle: an
            exception ends the whole run.
        chunks: As of `similar_chunks`, or any others.
        workers: Where to run; None: in this process, one chunk after the other.
        lost: Gives the result of an item that cannot be had because its worker dies each time;
            None: that is an error.

    Raises:
        ValueError: An item is lost and there is no ``lost``, or workers die without any success.
        Exception: What the function raised first.

    Processes are started afresh ("spawn"), so a script that calls this needs
    ``if __name__ == "__main__":``.
    """
    workers = workers or Workers()
    if workers.here:
        for chunk in chunks:
            yield from function(chunk)
        return
    call = Call(pickle.dumps(function), uuid.uuid4().hex, workers.threads)
    if workers.command:
        yield from map_by_jobs(call, chunks, workers, lost)
        return
    start = dask_executors if workers.dask else process_executors
    with start(workers, len(chunks)) as executors:
        yield from keep_busy(call, chunks, executors, lost)
