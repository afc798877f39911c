"""The Python of the recipe tests does what Python does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
PROGRAM = """
import os, sys
print(sys.argv, __name__, os.getcwd(), os.environ.get("GIVEN"), sys.stdin.read())
print("said", file=sys.stderr)
"""


def call(program: str, *args: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # type: ignore[call-overload, no-any-return]
        [program, *args], capture_output=True, text=True, check=False, **options
    )


def test_it_runs_what_python_runs(python: str, tmp_path: Path) -> None:
    (tmp_path / "some_module.py").write_text(PROGRAM)
    options = {"cwd": tmp_path, "env": os.environ | {"GIVEN": "x y"}, "input": "line\n"}
    calls = (["-m", "some_module", "-a"], ["some_module.py", "b c"], ["-u", "-c", PROGRAM, "d"])
    for args in calls:
        one, other = (call(program, *args, **options) for program in (python, sys.executable))
        assert one.stdout == other.stdout
        assert (one.stderr, one.returncode) == (other.stderr, other.returncode) == ("said\n", 0)


@pytest.mark.parametrize(
    ("code", "status", "said"),
    [
        ("raise SystemExit(3)", 3, ""),
        ("raise SystemExit", 0, ""),
        ("raise SystemExit('no way')", 1, "no way\n"),
        ("1 / 0", 1, "ZeroDivisionError"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", 128 + signal.SIGKILL, ""),
    ],
)
def test_it_ends_as_python_does(python: str, code: str, status: int, said: str) -> None:
    done = call(python, "-c", code)
    assert done.returncode == status
    assert said in done.stderr


def test_espnet_is_there_already_and_a_signal_passes_on(python: str) -> None:
    assert call(python, "-c", "import sys; sys.exit('torch' not in sys.modules)").returncode == 0
    code = "import time; print('begun', flush=True); time.sleep(60)"
    process = subprocess.Popen([python, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    process.terminate()
    assert process.wait(30) == 128 + signal.SIGTERM
    process.stdout.close()
