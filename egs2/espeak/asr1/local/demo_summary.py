"""The comparison of the demo in a few lines, from compare.json.

Example::

    python local/demo_summary.py exp/compare/compare.json
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from espnet_layerskip.files import run_main

HEADER = ("", "WER %", "frames skipped %", "encoder ms per s of audio", "GFLOPs per s of audio")


def summary_rows(record: Mapping[str, Any]) -> list[str]:
    """Return the cells of one row of compare.json."""
    if "wer" not in record:
        return [record["name"], record["status"], "", "", ""]
    time = record.get("encoder_time_per_second")
    return [
        record["name"],
        f"{sum(record['wer']) / len(record['wer']):.1f}",
        f"{100 * record['skip_ratio']:.0f}",
        "not timed" if time is None else f"{time['median_ms']:.1f}",
        f"{record['encoder_flops_per_second'] / 1e9:.3f}",
    ]


def summary(report: Mapping[str, Any]) -> str:
    """Return the table, its columns aligned, and what it was measured on."""
    rows = [list(HEADER), *(summary_rows(record) for record in report["rows"])]
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEADER))]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip()
        for row in rows
    ]
    data, environment = report["data"], report["environment"]
    about = (
        f"{data['dir']}: {data['utterances']} utterances, {data['words']} words, "
        f"{data['seconds']:.0f} s; {environment['cpu']}, {report['settings']['threads']} thread"
    )
    return "\n".join(["", *lines, "", about])


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
