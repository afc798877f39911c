#!/usr/bin/env python3
"""Break the code in known ways and see whether the tests notice: mutants.py has the ways.

    .venv/bin/python tools/mutation_check.py                # all; writes docs/mutation_check.md
    .venv/bin/python tools/mutation_check.py --only gate    # those with "gate" in their name
    .venv/bin/python tools/mutation_check.py --list

Each mutant is made in a copy of the tree and its tests are run with -x, in a fork of a process
that has ESPnet imported. First the same tests are run on the copy as it is: they have to pass.
The status is 1 if a mutant survives, or if the text that it replaces is not found exactly once.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from mutants import MUTANTS, Mutant

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "mutation_check.md"
COPIED = (
    *("espnet_layerskip", "tests", "egs2", "conf", "docs", "tools"),
    *("pyproject.toml", "setup.py", "README.md"),
)
TIMEOUT_S = 600
NOTHING_RAN = 4
NOTHING = "**nothing**"


class FirstFailure:
    """Notes the first test that fails.

    Args:
        path: Where it is written.
    """

    def __init__(self, path: Path):
        self.path = path

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Note a test that failed."""
        if report.failed and not self.path.exists():
            self.path.write_text(report.nodeid, encoding="utf-8")


def run_tests(tree: Path, tests: list[str]) -> tuple[int, str, float]:
    """Run tests of a tree; return pytest's status, the first test that failed and the seconds.

    Args:
        tree: A copy of the repository.
        tests: As pytest takes them.
    """
    noted, log, start = tree / "failed", tree / "log", time.monotonic()
    noted.unlink(missing_ok=True)
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            os.setsid()
            out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(out, 1)
            os.dup2(out, 2)
            os.chdir(tree)
            sys.path[:] = [str(tree), *(p for p in sys.path if Path(p or ".").resolve() != ROOT)]
            import pytest

            options = ["-x", "-q", "-p", "no:cacheprovider", "--tb=line", "--no-header"]
            status = pytest.main([*options, *tests], plugins=[FirstFailure(noted)])
            sys.stdout.flush()
            os._exit(int(status))
        os._exit(NOTHING_RAN)
    status = wait(child, start + TIMEOUT_S)
    failed = noted.read_text(encoding="utf-8") if noted.exists() else ""
    return status, failed, time.monotonic() - start


def wait(child: int, until: float) -> int:
    """Return the exit status of a child; one that takes too long is killed, and has failed."""
    while time.monotonic() < until:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.05)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return 1


def apply(mutant: Mutant, tree: Path) -> str:
    """Break a file of a tree; return what it was.

    Raises:
        ValueError: If the text is not there exactly once.
    """
    path = tree / mutant.file
    before = path.read_text(encoding="utf-8")
    count = before.count(mutant.old)
    if count != 1:
        raise ValueError(
            f"{mutant.name}: its text is {count} times in {mutant.file}, not once: "
            f"bring tools/mutants.py up to date ({mutant.old!r})"
        )
    path.write_text(before.replace(mutant.old, mutant.new), encoding="utf-8")
    return before


def copy_tree(target: Path) -> None:
    """Copy what the tests need of the repository."""
    skip = shutil.ignore_patterns("__pycache__", "exp", "dump", "data", "downloads", "corpus")
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, target / name, ignore=skip, symlinks=True)
        else:
            shutil.copy2(ROOT / name, target / name)


def page(rows: list[tuple[Mutant, str, float]], before: str) -> str:
    """Return the page of the results.

    Args:
        rows: Mutant, first test that failed ("" = none) and seconds.
        before: The page as it was: mutants that were not run keep their row.
    """
    table = {line.split(" | ")[0]: line for line in before.splitlines() if line.startswith("| ")}
    for mutant, test, seconds in rows:
        file = mutant.file.removeprefix("espnet_layerskip/")
        seen = f"`{test.removeprefix('tests/')}`" if test else NOTHING
        table[f"| {mutant.name}"] = f"| {mutant.name} | `{file}` | {seen} | {seconds:.0f} |"
    found = [line for m in MUTANTS if (line := table.get(f"| {m.name}"))]
    lines = [
        "# Do the tests notice?",
        "",
        "Written by `tools/mutation_check.py`: each row is a way to break the code, made in a copy",
        "of the tree, and the first test that notices it. `tools/mutants.py` has the replacements.",
        "The seconds are those of the tests up to that one, ESPnet's import left out.",
        "",
        f"{len(found)} mutants, {sum(NOTHING not in line for line in found)} noticed.",
        "",
        "| what is wrong | where | noticed by | s |",
        "|---|---|---|---|",
        *found,
    ]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Run the check; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--list", action="store_true", help="show the mutants and end")
    parser.add_argument("--only", default="", help="those with this text in their name or file")
    parser.add_argument("--page", type=Path, default=PAGE, help="where the table is [%(default)s]")
    options = parser.parse_args()
    chosen = [m for m in MUTANTS if options.only in f"{m.name} {m.file}"]
    if options.list:
        for mutant in chosen:
            print(f"{mutant.file}: {mutant.name} <- {' '.join(mutant.tests)}")
        return 0
    if not chosen:
        raise ValueError(f"no mutant has {options.only!r} in its name or file: see --list")
    os.environ |= {"CI": "true", "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"  # a file of the same second and size is stale
    sys.dont_write_bytecode = True
    import espnet2.tasks.asr  # noqa: F401  for all forks
    import hypothesis  # noqa: F401
    import pytest  # noqa: F401

    with tempfile.TemporaryDirectory(prefix="mutants") as directory:
        tree = Path(directory)
        copy_tree(tree)
        return check(chosen, tree, options.page)


def check(chosen: list[Mutant], tree: Path, target: Path) -> int:
    """Run mutants in a tree; return the exit status.

    Args:
        chosen: The mutants.
        tree: A copy of the repository.
        target: Where the table is; mutants that are not chosen keep their row.
    """
    problems = []
    for mutant in chosen:  # before anything takes time
        try:
            before = apply(mutant, tree)
        except ValueError as e:
            problems.append(str(e))
        else:
            (tree / mutant.file).write_text(before, encoding="utf-8")
    if problems:
        print("\n".join(problems), file=sys.stderr)
        return 1
    tests = list(dict.fromkeys(test for mutant in chosen for test in mutant.tests))
    status, failed, seconds = run_tests(tree, tests)
    print(f"as it is: status {status} {failed} [{seconds:.0f} s]", flush=True)
    if status:
        print((tree / "log").read_text(encoding="utf-8")[-3000:], file=sys.stderr)
        return 1
    rows, survivors = [], 0
    for mutant in chosen:
        before = apply(mutant, tree)
        status, failed, seconds = run_tests(tree, list(mutant.tests))
        (tree / mutant.file).write_text(before, encoding="utf-8")
        noticed = status != 0 and bool(failed)
        survivors += not noticed
        rows.append((mutant, failed, seconds))
        what = f"noticed by {failed}" if noticed else f"SURVIVED (status {status})"
        print(f"{mutant.name}: {what} [{seconds:.0f} s]", flush=True)
        if not noticed and status:
            print((tree / "log").read_text(encoding="utf-8")[-1500:], file=sys.stderr)
    known = target.read_text(encoding="utf-8") if target.exists() else ""
    target.write_text(page(rows, known), encoding="utf-8")
    print(f"{len(rows)} mutants, {survivors} survived")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
