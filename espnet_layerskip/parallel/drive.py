"""Keep workers busy with the parts of a list, repeat what a dead one had, keep the order."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import pickle
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")
R = TypeVar("R")
Function = Callable[[Sequence[Any]], Iterable[Any]]

DEATHS = 2
"""A chunk whose worker died so often is run item by item; an item whose worker did is lost."""

GIVE_UP = 10
"""So many workers may die one after another, and two for each that runs, before all is given up."""

LOOK_SECONDS = 60.0
"""Where nothing has come for so long, `Executors.look` is called."""

logger = logging.getLogger(__name__)
_LOADING = threading.Lock()


@dataclass(frozen=True)
class Call:
    """A function on its way to the workers of one run."""

    pickled: bytes
    run: str
    threads: int

    def __call__(self, chunk: Sequence[T]) -> list[Any]:
        """Run in a worker."""
        os.environ["OMP_NUM_THREADS"] = f"{self.threads}"
        if "torch" in sys.modules and sys.modules["torch"].get_num_threads() != self.threads:
            sys.modules["torch"].set_num_threads(self.threads)
        with contextlib.redirect_stdout(sys.stderr):
            with _LOADING:
                function = _load(self)
            try:
                results = list(function(chunk))
            except Exception as error:
                raise _on_its_way(error) from None
        if len(results) != len(chunk):
            raise ValueError(f"{function}: {len(results)} results for {len(chunk)} items")
        return results


def _on_its_way(error: Exception) -> Exception:
    """Return an error that can be sent; one that cannot would be taken for a worker's death."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


@functools.lru_cache(maxsize=1)
def _load(call: Call) -> Function:
    function: Function = pickle.loads(call.pickled)
    return function


@dataclass
class _Part:
    """Items that are run together, the place of the first in the whole list, past deaths."""

    start: int
    items: Sequence[Any]
    deaths: int = 0

    def again(self) -> list[_Part]:
        """Return what is to be run after one more death; nothing: its one item is lost."""
        deaths = self.deaths + 1
        if deaths < DEATHS:
            return [_Part(self.start, self.items, deaths)]
        if len(self.items) == 1:
            return []
        return [_Part(self.start + i, self.items[i : i + 1]) for i in range(len(self.items))]


class Executors:
    """Who runs parts. So many parts can run at once; ``renew`` replaces one whose worker died.

    ``look`` is called where nothing has come for a while.
    """

    def __init__(
        self,
        free: list[Executor],
        renew: Callable[[Executor], Executor],
        dead: Any,
        look: Callable[[], Any] = bool,
    ):
        self.free, self.renew, self.dead, self.look = free, renew, dead, look


def keep_busy(
    call: Call,
    chunks: Sequence[Sequence[T]],
    executors: Executors,
    lost: Callable[[T], R] | None,
) -> Iterator[R]:
    """Keep the executors busy and yield the results in order."""
    todo: deque[_Part] = deque()
    total = 0
    for chunk in chunks:
        if len(chunk):
            todo.append(_Part(total, chunk))
            total += len(chunk)
    done: dict[int, Any] = {}
    running: dict[Future[list[Any]], tuple[Executor, _Part]] = {}
    reached = in_a_row = 0
    most_in_a_row = 2 * len(executors.free) + GIVE_UP

    def submit() -> None:
        while todo and executors.free:
            executor, part = executors.free.pop(), todo.popleft()
            try:
                running[executor.submit(call, part.items)] = (executor, part)
            except executors.dead:  # it died while it had nothing to do
                logger.warning("a worker died: another one takes its place")
                executors.free.append(executors.renew(executor))
                todo.appendleft(part)

    submit()
    while reached < total:
        come = wait(running, LOOK_SECONDS, return_when=FIRST_COMPLETED).done
        if not come:
            executors.look()
        for future in come:
            executor, part = running.pop(future)
            try:
                done.update(enumerate(future.result(), part.start))
                in_a_row = 0
            except executors.dead as error:
                in_a_row += 1
                if in_a_row > most_in_a_row:
                    raise ValueError(
                        f"{in_a_row} workers died one after another and none has done its part "
                        f"({error}): is there enough memory for so many? Fewer of them may do"
                    ) from error
                todo.extendleft(reversed(_after_death(part, lost, done)))
                executor = executors.renew(executor)
            executors.free.append(executor)
        submit()  # before the results are used: that may take long
        while reached in done:
            yield done.pop(reached)
            reached += 1


def _after_death(part: _Part, lost: Callable[[T], R] | None, done: dict[int, Any]) -> list[_Part]:
    """Say what died, and return what is to be run again; a lost item's result is put in."""
    again = part.again()
    if again:
        logger.warning("a worker died: its %d item(s) are repeated", len(part.items))
    elif lost is None:
        raise ValueError(f"the worker of {part.items[0]} died {DEATHS} times: what is wrong there?")
    else:
        done[part.start] = lost(part.items[0])
    return again
