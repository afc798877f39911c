"""RESULTS.md of an experiment: the Sum/Avg rows of all its decodings, in ESPnet's table form.

Example::

    python -m espnet_layerskip.recipe.show_asr_result exp/asr_x --output exp/asr_x/RESULTS.md
"""

from __future__ import annotations

import argparse
import platform
import subprocess
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from espnet_layerskip.files import run_main, write_text
from espnet_layerskip.recipe.score_table import read_average

HEAD = "|dataset|Snt|Wrd|Corr|Sub|Del|Ins|Err|S.Err|\n|---|---|---|---|---|---|---|---|---|\n"


def package_version(name: str) -> str:
    """Return the version of an installed package, or 'not installed'."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def git_commit() -> str:
    """Return the commit of the working directory ('+' after it: changed files), or 'unknown'."""
    command = ["git", "describe", "--always", "--abbrev=40", "--dirty=+"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return "unknown"
    return done.stdout.strip() if done.returncode == 0 else "unknown"


def environment() -> list[str]:
    """Return the lines that say with what the results were made."""
    return [
        f"- date: `{time.strftime('%Y-%m-%dT%H:%M:%S%z')}`",
        f"- python version: `{platform.python_version()}`",
        f"- espnet version: `espnet {package_version('espnet')}`",
        f"- pytorch version: `pytorch {package_version('torch')}`",
        f"- Git hash: `{git_commit()}`",
    ]


def show_asr_result(exp: Path) -> str:
    """Return the text of RESULTS.md.

    Raises:
        ValueError: Nothing was scored in ``exp``.
    """
    results = {k: sorted(exp.glob(f"**/score_{k}/result.txt")) for k in ("wer", "cer", "ter")}
    if not any(results.values()):
        raise ValueError(f"{exp}: no score_*/result.txt in it; stage 13 makes them")
    lines = ["# RESULTS", "## Environments", *environment(), "", f"## {exp}"]
    for kind, files in results.items():
        lines += [f"### {kind.upper()}", "", HEAD.rstrip()]
        for file in files:
            try:
                row = read_average(file.read_text(encoding="utf-8"))
            except ValueError as err:
                raise ValueError(f"{file}: {err}: run stage 13 again") from err
            lines.append(f"|{file.parent.parent.relative_to(exp)}|{'|'.join(row)}|")
        lines.append("")
    scorers = {
        "jiwer" if f.read_text(encoding="utf-8").startswith("Scored by jiwer") else "sclite"
        for files in results.values()
        for f in files
    }
    lines.append(f"Scored by {' and '.join(sorted(scorers))}.")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Write RESULTS.md")
    parser.add_argument("exp", type=Path, help="Directory of an experiment")
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    write_text(args.output, show_asr_result(args.exp))


if __name__ == "__main__":
    run_main(main)
