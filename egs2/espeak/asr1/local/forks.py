"""Call a function for each of many items, each call in a process forked for it alone."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

T = TypeVar("T")
R = TypeVar("R")


def map_in_forks(function: Callable[[T], R], items: Sequence[T], nj: int) -> Iterator[R]:
    """Yield the results as they come, not in the order of the items.

    Every call starts from the state that this process is in, so that its result depends on its
    item only. When the caller stops early (an error, Ctrl-C), running calls are ended. To be used
    in the main thread.

    Args:
        function: Its result and its exceptions must be picklable.
        items: One call each.
        nj: Processes at a time.

    Raises:
        KeyboardInterrupt: On Ctrl-C, between two results.
        ValueError: A process ended without a result (killed, or crashed).
        Exception: The first ValueError or OSError that the function raised.
    """
    context = multiprocessing.get_context("fork")
    running: dict[Connection, tuple[BaseProcess, T]] = {}
    process: BaseProcess
    todo = iter(items)
    stopped: list[int] = []
    # Python's own handler raises anywhere, also in hooks of fork that swallow exceptions.
    before = signal.signal(signal.SIGINT, lambda signum, frame: stopped.append(signum))
    try:
        while True:
            if stopped:
                raise KeyboardInterrupt
            while len(running) < max(1, nj) and (item := next(todo, None)) is not None:
                receiver, sender = context.Pipe(duplex=False)
                process = context.Process(target=_call, args=(function, item, sender), daemon=True)
                process.start()
                sender.close()
                running[receiver] = (process, item)
            if not running:
                return
            for ready in wait(list(running), timeout=0.2):
                assert isinstance(ready, Connection)
                process, item = running.pop(ready)
                yield _result(ready, process, item)
    finally:
        signal.signal(signal.SIGINT, before)
        for process, _ in running.values():
            process.terminate()
            process.join()


def _call(function: Callable[[T], R], item: T, sender: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent
    try:
        sender.send((True, function(item)))
    except (ValueError, OSError) as err:
        sender.send((False, err))


def _result(receiver: Connection, process: BaseProcess, item: object) -> Any:
    try:
        ok, value = receiver.recv()
    except EOFError:
        process.join()
        raise ValueError(f"a process ended with status {process.exitcode} at {item}") from None
    process.join()
    if not ok:
        raise value
    return value
