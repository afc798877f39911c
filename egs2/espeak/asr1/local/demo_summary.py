"""The comparison of the demo in a few lines, from compare.json.

Example::

    python local/demo_summary.py exp/compare/compare.json
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from espnet_layerskip.evaluation.verdict import verdict
from espnet_layerskip.files import run_main

HEADER = ("", "WER %", "frames skipped %", "GFLOPs per s")


def summary_rows(record: Mapping[str, Any], lengths: Sequence[str]) -> list[str]:
    """Return the cells of one row of compare.json; times at these lengths, or over all audio."""
    blank = [""] * (len(HEADER) - 2 + max(1, len(lengths)))
    if "wer" not in record:
        return [record["name"], record["status"], *blank]
    times = [record.get("encoder_time_per_second")]
    if lengths:
        times = [record["encoder_time_by_length"][length] for length in lengths]
    shown = [f"{time['median_ms']:.1f}" if time else "not timed" for time in times]
    return [
        record["name"],
        f"{sum(record['wer']) / len(record['wer']):.1f}",
        f"{100 * record['skip_ratio']:.0f}",
        f"{record['encoder_flops_per_second'] / 1e9:.3f}",
        *(shown if record["status"] == "ok" else ["failed"] * len(shown)),
    ]


def summary(report: Mapping[str, Any]) -> str:
    """Return the verdict, the table with its columns aligned, and what it was measured on."""
    records = report["rows"]
    lengths = next((list(n) for r in records if (n := r.get("encoder_time_by_length"))), [])
    times = [f"at {length} s" for length in lengths] or ["encoder ms per s"]
    if lengths:
        times[0] = f"encoder ms per s {times[0]}"
    rows = [[*HEADER, *times], *(summary_rows(record, lengths) for record in records)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    failed = [f"{r['name']} {r['status']}" for r in records if "wer" in r and r["status"] != "ok"]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip()
        for row in rows
    ]
    data, environment = report["data"], report["environment"]
    about = (
        f"{data['dir']}: {data['utterances']} utterances, {data['words']} words, "
        f"{data['seconds']:.0f} s; {environment['cpu']}, {report['settings']['threads']} thread"
    )
    after = ["", *failed] if failed else []
    return "\n".join(["", verdict(records), "", *lines, *after, "", about])


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Print the comparison in a few lines")
    parser.add_argument("compare_json", type=Path)
    args = parser.parse_args()
    if not args.compare_json.is_file():
        raise ValueError(f"{args.compare_json}: no such file; compare_exps (stage 16) writes it")
    print(summary(json.loads(args.compare_json.read_text(encoding="utf-8"))))


if __name__ == "__main__":
    run_main(main)
