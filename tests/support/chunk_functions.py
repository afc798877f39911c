"""Functions for worker processes, which import them from here."""

import contextlib
import os
import signal
import tempfile
import time
from pathlib import Path


def square_slowly(items):
    """The first items take longest, so that chunks end in another order."""
    for item in items:
        time.sleep(0.2 if item == 0 else 0.0)
        print("a line that must not reach stdout")
        yield item * item


def die_at(log, item, times, items):
    """Square, note each item that is begun, and die at one of them the first ``times`` times."""
    for one in items:
        with Path(log).open("a") as file:
            file.write(f"{one}\n")
        if one == item and Path(log).read_text().split().count(f"{item}") <= times:
            os.kill(os.getpid(), signal.SIGKILL)
        yield one * one


def die_once(died, function, items):
    """Do as the function does, but die after the first item if no process has died so before."""
    for result in function(items):
        yield result
        with contextlib.suppress(FileExistsError):
            Path(died).touch(exist_ok=False)
            os.kill(os.getpid(), signal.SIGKILL)


def note_pid_and_sleep(directory, items):
    tempfile.mkdtemp()
    Path(directory, f"{os.getpid()}").touch()
    time.sleep(60)
    return items


def note_pid_and_fail(directory, items):
    Path(directory, f"{os.getpid()}").touch()
    raise ValueError(f"nothing is done with {items[0]}")


def hears_interrupts(items):
    return [signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])] * len(items)


def too_few(items):
    return items[1:]


class Loader:
    """Says how often it was loaded in its process, and how many threads that may use."""

    def __init__(self):
        self.loads = 0

    def __call__(self, items):
        self.loads += 1
        threads = os.environ["OMP_NUM_THREADS"]
        return [(os.getpid(), self.loads, threads) for _ in items]


def no_result(item):
    return f"no {item}"


class Odd(Exception):
    """Can be sent to another process, but not be read there."""

    def __init__(self, what, number):
        super().__init__(f"{what} {number}")


def fail_oddly(items):
    raise Odd("no", 7)
