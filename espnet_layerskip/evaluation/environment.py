"""What a measurement ran on: versions, commit, machine and its load. No host names, no paths."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

import espnet_layerskip

PACKAGE_DIR = Path(espnet_layerskip.__file__).resolve().parent


def environment_record() -> dict[str, Any]:
    """Return a JSON-able record of the software, the machine and the load average now.

    ``load_after`` is None until `finish_record` fills it in.
    """
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC"),
        "espnet_layerskip": espnet_layerskip.__version__,
        "commit": git_commit(),
        "espnet": version("espnet"),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "usable_cores": _usable_cores(),
        "num_threads": torch.get_num_threads(),
        "num_interop_threads": torch.get_num_interop_threads(),
        "load_before": _load(),
        "load_after": None,
    }


def finish_record(record: dict[str, Any]) -> dict[str, Any]:
    """Return the record with the load average after the measurement."""
    return {**record, "load_after": _load()}


def describe(record: dict[str, Any]) -> list[str]:
    """Return the record as lines for people."""
    commit = record["commit"] or "not in a git checkout"

    def load(values: Sequence[float] | None) -> str:
        return "unknown" if values is None else " ".join(f"{v:.2f}" for v in values)

    return [
        f"- date: {record['date']}",
        f"- espnet_layerskip {record['espnet_layerskip']} (commit {commit}), "
        f"espnet {record['espnet']}, torch {record['torch']}, python {record['python']}",
        f"- machine: {record['cpu']}, {record['usable_cores']} of {record['cores']} cores usable; "
        f"load average (1, 5, 15 min) {load(record['load_before'])} before, "
        f"{load(record['load_after'])} after",
    ]


def typed(words: Sequence[str]) -> str:
    """Return a command as it can be typed again."""
    return shlex.join(",".join(map(relative, word.split(","))) for word in words)


def relative(path: Path | str) -> str:
    """Return a path, relative if it is below the current folder."""
    return str(path).removeprefix(f"{Path.cwd()}{os.sep}")


def git_commit(directory: Path = PACKAGE_DIR) -> str | None:
    """Return the commit of the checkout that tracks the package, "-dirty" if it was changed.

    None where the package is not tracked by git, for instance installed in site-packages.
    """
    if _git(directory, "ls-files", "--error-unmatch", "__init__.py") is None:
        return None
    commit = _git(directory, "rev-parse", "--short=12", "HEAD")
    changed = _git(directory, "status", "--porcelain", "--untracked-files=no", "--", ".")
    return f"{commit}-dirty" if commit and changed else commit


def cpu_model(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Return the CPU's model name as the system states it."""
    try:
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _git(directory: Path, *args: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(directory), *args], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def _usable_cores() -> int | None:
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count()


def _load() -> list[float] | None:
    try:
        return [round(v, 2) for v in os.getloadavg()]
    except OSError:
        return None
