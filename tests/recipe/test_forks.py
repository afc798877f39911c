"""A process for each item."""

from __future__ import annotations

import os
import subprocess
import sys

from .conftest import REPO

PROGRAM = """
import os, time
from forks import map_in_forks

state = []

def call(item):
    state.append(item)
    if item == "bad":
        raise ValueError("the reason")
    if item == "crash":
        os._exit(3)
    if item == "slow":
        time.sleep(60)
    return item, len(state), os.getpid()
"""


def run(code: str) -> subprocess.CompletedProcess[str]:
    """Run code in a process without threads, as the recipes do."""
    return subprocess.run(
        [sys.executable, "-c", PROGRAM + code],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(REPO / "egs2/espeak/asr1/local")},
        check=False,
        timeout=60,
    )


def test_every_call_starts_from_the_same_state() -> None:
    done = run(
        "rows = sorted(map_in_forks(call, list('abcdef'), 2))\n"
        "assert [r[:2] for r in rows] == [(x, 1) for x in 'abcdef'], rows\n"
        "assert len({r[2] for r in rows}) == 6 and not state\n"
    )
    assert done.returncode == 0, done.stderr


def test_an_error_reaches_the_caller_and_ends_the_others() -> None:
    done = run("list(map_in_forks(call, ['slow', 'bad'], 2))")
    assert "ValueError: the reason" in done.stderr


def test_a_crash_is_named() -> None:
    done = run("list(map_in_forks(call, ['crash'], 1))")
    assert "ValueError: a process ended with status 3 at crash" in done.stderr


def test_interrupting_ends_the_running_calls() -> None:
    done = run(
        "import signal, multiprocessing, threading\n"
        "threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()\n"
        "try:\n"
        "    list(map_in_forks(call, ['slow', 'slow'], 2))\n"
        "except KeyboardInterrupt:\n"
        "    print('left:', len(multiprocessing.active_children()))\n"
    )
    assert done.returncode == 0, done.stderr
    assert "left: 0" in done.stdout
