"""Chunks as jobs of a batch system: a runner in Kaldi's form starts ``run_share`` N times.

Function, chunks and results are files in a directory that all machines see. Jobs that failed are
started again, once; what they had done is kept.
"""

from __future__ import annotations

import logging
import pickle
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from espnet_layerskip.files import write_bytes
from espnet_layerskip.parallel.drive import DEATHS, Call, keep_busy
from espnet_layerskip.parallel.executors import process_executors
from espnet_layerskip.parallel.workers import Workers

T = TypeVar("T")
R = TypeVar("R")

logger = logging.getLogger(__name__)
TAIL_LINES = 15


def map_by_jobs(
    call: Call,
    chunks: Sequence[Sequence[T]],
    workers: Workers,
    lost: Callable[[T], R] | None = None,
) -> Iterator[R]:
    """Run chunks as batch jobs; see `espnet_layerskip.parallel.map_chunks`.

    Raises:
        ValueError: The jobs fail without having done anything, or some of the work, twice.
        Exception: What the function raised in a job.
    """
    directory = Path(workers.logdir or "").absolute()
    work = directory / "layerskip_chunks"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True, mode=0o700)  # whoever can write here runs code in the jobs
    _write(work / "call", (call, lost))
    for number, chunk in enumerate(chunks):
        _write(work / f"chunk.{number}", chunk)
    missing = list(range(len(chunks)))
    for _ in range(DEATHS):
        if not missing:
            break
        jobs = min(workers.num, len(missing))
        for job in range(jobs):
            _write(work / f"share.{job + 1}", missing[job::jobs])
        status = _submit(workers.command or "", jobs, directory / "job.JOB.log", work)
        if (work / "error").is_file():
            raise _read(work / "error")
        missing = [n for n in missing if not (work / f"result.{n}").is_file()]
        if missing:
            logger.warning("%d chunk(s) have no result (status %d)", len(missing), status)
    if missing:
        raise ValueError(
            f"{len(missing)} of {len(chunks)} chunk(s) have no result after {DEATHS} tries of "
            f"'{workers.command}': see {directory}/job.*.log\n{_tail(directory / 'job.1.log')}"
        )
    for number in range(len(chunks)):
        yield from _read(work / f"result.{number}")
    shutil.rmtree(work)


def _submit(command: str, jobs: int, log: Path, work: Path) -> int:
    """Run the jobs and wait for them; return the runner's exit status."""
    program = [sys.executable, "-m", "espnet_layerskip.parallel", str(work), "JOB"]
    words = [*shlex.split(command), f"JOB=1:{jobs}", str(log), *program]
    try:
        runner = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=sys.stderr.fileno())
    except OSError as error:
        raise ValueError(f"--cmd {command}: cannot be run ({error})") from error
    try:
        return runner.wait()
    finally:
        if runner.poll() is None:  # an error or Ctrl-C here: the runner ends its jobs
            runner.terminate()
            runner.wait()


def run_share(work: Path, job: str) -> None:
    """Run the chunks of one job, in a process of their own that may die and is then replaced."""
    call, lost = _read(work / "call")
    numbers = [n for n in _read(work / f"share.{job}") if not (work / f"result.{n}").exists()]
    chunks = [_read(work / f"chunk.{n}") for n in numbers]
    try:
        with process_executors(Workers(threads=call.threads), 1) as executors:
            results = keep_busy(call, chunks, executors, lost)
            for number, chunk in zip(numbers, chunks, strict=True):
                _write(work / f"result.{number}", list(islice(results, len(chunk))))
                print(f"chunk {number}: {len(chunk)} item(s) done", flush=True)
    except Exception as error:
        _write(work / "error", error)
        raise


def _write(path: Path, content: Any) -> None:
    write_bytes(path, pickle.dumps(content))


def _read(path: Path) -> Any:
    return pickle.loads(path.read_bytes())


def _tail(log: Path) -> str:
    if not log.is_file():
        return f"(there is no {log})"
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-TAIL_LINES:])
