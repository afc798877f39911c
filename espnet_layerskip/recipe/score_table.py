"""The summary table that sclite prints, made from error counts, and read again."""

from __future__ import annotations

import re
from collections.abc import Mapping

from espnet_layerskip.evaluation.scoring import Counts


def format_table(counts: Mapping[str, Counts], utt2spk: Mapping[str, str]) -> str:
    """Return sclite's summary table: a row for each speaker, then Sum/Avg."""
    speakers: dict[str, Counts] = {}
    for utt, one in counts.items():
        speaker = utt2spk[utt]
        speakers[speaker] = speakers.get(speaker, Counts()) + one
    rows = [(name, speakers[name]) for name in sorted(speakers)]
    rows.append(("Sum/Avg", sum(speakers.values(), Counts())))
    width = max(7, *(len(name) for name, _ in rows))
    head = f"| {'SPKR':<{width}} | # Snt # Wrd | Corr    Sub    Del    Ins    Err  S.Err |"
    rule = "-" * len(head)
    lines = ["Scored by jiwer", "", rule, head, rule]
    for name, c in rows:
        if name == "Sum/Avg":
            lines.append(rule)
        numbers = " ".join(f"{p:6.1f}" for p in c.percentages())
        lines.append(f"| {name:<{width}} |{c.sentences:5d} {c.words:5d} |{numbers[1:]} |")
    return "\n".join([*lines, rule]) + "\n"


def read_average(result: str) -> list[str]:
    """Return Snt, Wrd, Corr, Sub, Del, Ins, Err, S.Err of the Sum/Avg row, as they were printed.

    Raises:
        ValueError: The text has no such row.
    """
    for line in result.splitlines():
        if "Sum/Avg" in line:
            numbers: list[str] = re.findall(r"\d+(?:\.\d+)?", line)
            if len(numbers) == 8:
                return numbers
    raise ValueError("no 'Sum/Avg' row with 8 numbers; this is not a result of stage 13")
