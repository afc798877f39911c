"""Pages for people, in markdown: tables that fit a screen, and what folds away."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from statistics import mean


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a markdown table; a "|" inside a cell is escaped."""
    lines = [header, ["---"] * len(header), *rows]
    for row in lines:
        assert len(row) == len(header), (row, header)
    return "\n".join("| " + " | ".join(c.replace("|", "\\|") for c in row) + " |" for row in lines)


def over_seeds(values: Sequence[float]) -> str:
    """Return the mean, with min and max if there are several values."""
    if len(values) < 2:
        return f"{values[0]:.2f}"
    return between(mean(values), min(values), max(values))


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return rows of cells as lines, in columns."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip()
        for row in rows
    ]


def between(value: float, low: float, high: float) -> str:
    """Return a value with its lowest and its highest."""
    return f"{value:.2f} ({low:.2f} to {high:.2f})"


def page(title: str, facts: Sequence[str], *parts: str) -> str:
    """Return a page: its title, a list of facts, and its parts but for empty ones."""
    head = "\n".join([f"# {title}", "", *facts])
    return "\n\n".join([head, *(part for part in parts if part)]) + "\n"


def folded(summary: str, *parts: str) -> str:
    """Return parts that are shown when their summary is clicked on; nothing if all are empty."""
    content = "\n\n".join(part for part in parts if part)
    return f"<details>\n<summary>{summary}</summary>\n\n{content}\n\n</details>" if content else ""


def folded_command(command: str) -> str:
    """Return a command that folds away, one option a line, ready to be typed again."""
    lines = [""]
    for word in map(shlex.quote, shlex.split(command)):
        if word.startswith("--"):
            lines.append(f"    {word}")
        else:
            lines[-1] = f"{lines[-1]} {word}" if lines[-1] else word
    return folded("Command", "```sh\n" + " \\\n".join(lines) + "\n```")


def threads(number: int) -> str:
    """Return a number of threads in words."""
    return f"{number} thread{'s' if number > 1 else ''}"


def bullets(lines: Sequence[str]) -> str:
    """Return lines as a list."""
    return "\n".join(f"- {line}" for line in lines)
