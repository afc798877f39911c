"""Tables for people: markdown, with failed rows printed as failed."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean

MAX_WER_INCREASE = 0.3  # percent points; the project's own bound for "no loss"


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


def judge(wer: float, reference: float | None, max_increase: float) -> str:
    """Return "ok", or why a row may not count as fast.

    Args:
        wer: Of the row, in percent.
        reference: Of the same weights at full depth, in percent; None = nothing to compare.
        max_increase: Allowed increase in percent points.
    """
    if reference is None or wer <= reference + max_increase + 1e-9:
        return "ok"
    return f"failed: WER {wer - reference:+.2f} over full depth (allowed {max_increase:+.2f})"
