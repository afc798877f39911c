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


def over_seeds(values: Sequence[float], digits: int = 2) -> str:
    """Return the mean, with min and max if there are several values."""
    text = f"{mean(values):.{digits}f}"
    if len(values) > 1:
        text += f" ({min(values):.{digits}f} to {max(values):.{digits}f})"
    return text


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


def bullets(lines: Sequence[str]) -> str:
    """Return lines as a list."""
    return "\n".join(f"- {line}" for line in lines)
