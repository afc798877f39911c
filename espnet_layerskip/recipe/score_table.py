"""Error counts by jiwer, and the table that sclite prints for such counts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Counts:
    """Aligned tokens of one or more sentences: correct, substituted, deleted, inserted."""

    sentences: int = 0
    correct: int = 0
    sub: int = 0
    deletions: int = 0
    ins: int = 0
    wrong_sentences: int = 0

    @property
    def words(self) -> int:
        """Number of reference tokens."""
        return self.correct + self.sub + self.deletions

    @property
    def errors(self) -> int:
        """Substitutions, deletions and insertions."""
        return self.sub + self.deletions + self.ins

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.sentences + other.sentences,
            self.correct + other.correct,
            self.sub + other.sub,
            self.deletions + other.deletions,
            self.ins + other.ins,
            self.wrong_sentences + other.wrong_sentences,
        )

    def percentages(self) -> list[float]:
        """Return Corr, Sub, Del, Ins, Err (of the reference tokens), S.Err (of the sentences)."""
        words = max(self.words, 1)
        counts = (self.correct, self.sub, self.deletions, self.ins, self.errors)
        wrong = 100.0 * self.wrong_sentences / max(self.sentences, 1)
        return [100.0 * c / words for c in counts] + [wrong]


def count_errors(ref: list[str], hyp: list[str]) -> Counts:
    """Align one sentence by jiwer (fewest errors) and count.

    The number of errors is sclite's; where several alignments have as many, sclite may split
    them otherwise into substitutions, deletions and insertions.

    Raises:
        ValueError: jiwer is not installed.

    >>> count_errors("a b c d".split(), "a x c".split())
    Counts(sentences=1, correct=2, sub=1, deletions=1, ins=0, wrong_sentences=1)
    """
    if not ref or not hyp:
        return Counts(1, 0, 0, len(ref), len(hyp), int(ref != hyp))
    try:
        import jiwer
    except ImportError as err:
        raise ValueError(
            "neither sclite nor jiwer is installed: pip install jiwer, or Debian's sctk"
        ) from err
    # jiwer takes text: every token becomes one word without anything that it could change.
    names: dict[str, str] = {}
    texts = [" ".join(names.setdefault(t, f"t{len(names)}") for t in side) for side in (ref, hyp)]
    out = jiwer.process_words(texts[0], texts[1])
    return Counts(1, out.hits, out.substitutions, out.deletions, out.insertions, int(ref != hyp))


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
