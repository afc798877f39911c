"""Run a command as N parallel jobs with a log each: the part of Kaldi's run.pl that is needed.

Example::

    python -m espnet_layerskip.recipe.run_jobs JOB=1:4 log/stats.JOB.log cmd --part JOB

``JOB`` in the log's path and in the command's words stands for the number of the job, or for its
name (``JOB=stock,ours``). A job that fails fails the run, after the others have ended; the last
lines of its log are printed. With ``--config conf/slurm.conf`` the jobs are run by Slurm.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import hashlib
import json
import logging
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from espnet_layerskip.files import DISK_FULL, run_main, write_text
from espnet_layerskip.recipe.slurm import srun_words

TAIL_LINES = 25
FIRST_SIGNAL = 128  # a shell's, and srun's, status of a program that was killed is above it
RESOURCES = ("gpu", "name", "mem", "num_threads", "num_nodes", "time")
HASHED_BYTES = 1 << 20
PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None  # loaded before anything forks


@dataclass
class Job:
    """One command, its log, and what says that it has been done already."""

    name: str
    command: list[str]
    log: Path
    done: Path | None = None
    fresh: Path | None = None
    depends: list[Path] = field(default_factory=list)
    makes: Path | None = None
    launcher: list[str] = field(default_factory=list)

    def signature(self) -> dict[str, Any]:
        """Return the command and the state of the files that its result depends on."""
        return {"command": self.command, "depends": {str(p): file_state(p) for p in self.depends}}

    def is_done(self) -> bool:
        """Tell whether the same command has ended well before, on the same files."""
        if self.done is None or not self.done.is_file():
            return False
        if self.makes is not None and not self.makes.exists():
            return False
        try:
            stored = json.loads(self.done.read_text(encoding="utf-8"))
        except ValueError:
            return False
        return bool(stored == self.signature())


def file_state(path: Path) -> str:
    """Return a hash of a small file's content; size and time of a large one's; or 'missing'."""
    if not path.is_file():
        return "missing"
    stat = path.stat()
    if stat.st_size <= HASHED_BYTES:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    return f"{stat.st_size} bytes, mtime {stat.st_mtime_ns}"


def rotate(log: Path, keep: int) -> None:
    """Move ``train.log`` to ``train.1.log``, that to ``train.2.log``, and so on up to ``keep``."""
    for i in range(keep - 1, -1, -1):
        old = log if i == 0 else log.with_suffix(f".{i}{log.suffix}")
        if old.exists():
            os.replace(old, log.with_suffix(f".{i + 1}{log.suffix}"))


class Runner:
    """Runs jobs and ends what is running when it is interrupted."""

    def __init__(self, show: str | None = None, retries: int = 0) -> None:
        self.show = re.compile(show) if show else None
        self.retries = retries
        self.running: set[subprocess.Popen[str]] = set()
        self.stopped = False

    def stop(self, signum: int, frame: object) -> None:
        """Signal handler: end every running job (with its children) and start no other."""
        self.stopped = True
        for process in list(self.running):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)

    def run(self, job: Job) -> int:
        """Run one job, again if it was killed, and return its exit status."""
        for left in range(self.retries, -1, -1):
            code = self._run_once(job)
            killed = code < 0 or code > FIRST_SIGNAL
            if self.stopped or not killed or not left:
                break
            logging.warning("job %s was killed (status %d): it is run again", job.name, code)
        return code

    def _run_once(self, job: Job) -> int:
        if self.stopped:
            return 130
        if job.done is not None:
            job.done.unlink(missing_ok=True)
        if job.fresh is not None and job.fresh.is_dir():
            shutil.rmtree(job.fresh)
        signature = job.signature()
        job.log.parent.mkdir(parents=True, exist_ok=True)
        begin = time.time()
        with job.log.open("w", encoding="utf-8") as log:
            words = shlex.join([*job.launcher, *job.command])
            log.write(f"# {words}\n# Started at {time.ctime()}\n#\n")
            log.flush()
            try:
                code = self._execute(job, log)
            except OSError as err:
                log.write(f"{err}\n")
                code = 127
            elapsed = time.time() - begin
            log.write(f"# Ended (code {code}) at {time.ctime()}, elapsed time {elapsed:.0f} s\n")
        if code == 0 and job.done is not None:
            write_text(job.done, json.dumps(signature, indent=1) + "\n")
        return code

    def _execute(self, job: Job, log: Any) -> int:
        process = subprocess.Popen(
            [*job.launcher, *job.command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if self.show else log,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
            preexec_fn=end_with_parent,
        )
        self.running.add(process)
        try:
            if self.show and process.stdout:
                for line in process.stdout:
                    log.write(line)
                    log.flush()
                    if self.show.search(line):
                        print(line.rstrip(), flush=True)
            return process.wait()
        finally:
            self.running.discard(process)


def end_with_parent() -> None:
    """Let the system end this process as SIGTERM does when the one that started it is killed."""
    if LIBC is not None:
        LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def stop_with_parent(every: float = 1.0) -> None:
    """End this process as SIGTERM does when the script that started it is gone (killed)."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(every)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def run_jobs(jobs: Sequence[Job], max_jobs: int, runner: Runner) -> list[Job]:
    """Run the jobs that are not done, ``max_jobs`` at a time; return those that failed."""
    todo = [job for job in jobs if not job.is_done()]
    if len(todo) < len(jobs):
        logging.info("%d of %d job(s) are done already", len(jobs) - len(todo), len(jobs))
    failed: list[Job] = []
    with ThreadPoolExecutor(max_workers=max(1, max_jobs)) as pool:
        for job, code in zip(todo, pool.map(runner.run, todo), strict=True):
            if code != 0:
                failed.append(job)
                if not runner.stopped:
                    report_failure(job, code)
    return failed


def report_failure(job: Job, code: int) -> None:
    """Print the end of a failed job's log and where the log is."""
    lines = job.log.read_text(encoding="utf-8", errors="replace").splitlines()
    print(f"ERROR: job {job.name} failed with status {code}; the end of its log:", file=sys.stderr)
    for line in lines[-TAIL_LINES:]:
        print(f"    {line}", file=sys.stderr)
    if any("No space left on device" in line for line in lines[-TAIL_LINES:]):
        print(f"ERROR: {job.log}{DISK_FULL}", file=sys.stderr)
    print(f"ERROR: full log: {job.log}", file=sys.stderr, flush=True)


def make_jobs(args: argparse.Namespace) -> list[Job]:
    """Expand JOB in the command line that was given.

    Raises:
        ValueError: A bad range, no log or command, or a bad ``--config``.
    """
    words = list(args.words)
    names = ["1"]
    match = re.fullmatch(r"JOB=(?:(\d+):(\d+)|([\w,]+))", words[0]) if words else None
    if match:
        words.pop(0)
        names = (match[3] or "").split(",")
        if match[1]:
            names = [str(n) for n in range(int(match[1]), int(match[2]) + 1)]
        if not all(names) or not names:
            raise ValueError(f"{match[0]}: the range of jobs is empty")
    if len(words) < 2:
        raise ValueError("needed: [JOB=1:N] LOG COMMAND...; e.g. JOB=1:2 log/x.JOB.log echo JOB")
    if len(names) > 1 and "JOB" not in words[0]:
        raise ValueError(f"'{words[0]}': the jobs would share this log; put JOB into its path")
    launcher = []
    if args.config:
        given = {name: getattr(args, name) for name in RESOURCES}
        launcher = srun_words(args.config, {k: v for k, v in given.items() if v is not None})

    def fill(word: str, name: str) -> str:
        return word.replace("JOB", name) if match else word  # as Kaldi's run.pl

    jobs = []
    for name in names:
        log, *command = (fill(word, name) for word in words)
        done = Path(fill(args.done, name)) if args.done else None
        depends = [Path(fill(p, name)) for p in args.depends]
        fresh = Path(fill(args.fresh, name)) if args.fresh else None
        makes = Path(fill(args.makes, name)) if args.makes else None
        jobs.append(Job(name, command, Path(log), done, fresh, depends, makes, launcher))
    return jobs


def get_parser() -> argparse.ArgumentParser:
    """Return the parser; the options of Kaldi's cluster scripts are used with ``--config``."""
    parser = argparse.ArgumentParser(description="Run a command as parallel jobs")
    parser.add_argument("--max_jobs", type=int, default=0, help="At most so many at a time")
    parser.add_argument("--done", help="Marker (with JOB) that is written when a job ended well")
    parser.add_argument("--depends", action="append", default=[], help="File that makes it stale")
    parser.add_argument("--makes", help="What it makes (with JOB); gone: the job is not done")
    parser.add_argument("--fresh", help="Directory (with JOB) to remove before a job is run")
    parser.add_argument("--show", help="Print the lines of the log that match this expression")
    parser.add_argument("--retries", type=int, default=0, help="Runs of a job that was killed")
    parser.add_argument("--rotate", type=int, default=0, help="Keep so many older logs")
    parser.add_argument("--config", help="conf/slurm.conf: let Slurm run the jobs, see slurm.py")
    for name in RESOURCES:
        parser.add_argument(f"--{name}", help="Of a job, with --config")
    parser.add_argument("words", nargs=argparse.REMAINDER, help="[JOB=1:N] LOG COMMAND...")
    return parser


def main() -> None:
    """Command line."""
    args = get_parser().parse_args()
    jobs = make_jobs(args)
    if args.rotate:
        for job in jobs:
            rotate(job.log, args.rotate)
    runner = Runner(args.show, args.retries)
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signum != signal.SIGHUP or signal.getsignal(signum) != signal.SIG_IGN:  # nohup
            signal.signal(signum, runner.stop)
    stop_with_parent()
    failed = run_jobs(jobs, args.max_jobs or len(jobs), runner)
    if runner.stopped:
        raise ValueError("interrupted; the running jobs were ended")
    if failed:
        raise ValueError(f"{len(failed)} of {len(jobs)} job(s) failed: {failed[0].log}")


if __name__ == "__main__":
    run_main(main)
