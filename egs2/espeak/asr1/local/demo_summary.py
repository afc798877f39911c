"""The comparison of the demo in a few lines, from compare.json, and that of the two runtimes.

Example::

    python local/demo_summary.py exp/compare/compare.json exp/benchmark/benchmark.json
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from espnet_layerskip.evaluation.tables import aligned
from espnet_layerskip.evaluation.verdict import verdict
from espnet_layerskip.files import run_main

HEADER = ("", "WER %", "frames skipped %", "GFLOPs per s")
RUNTIMES = {
    "PyTorch, skipping off": "ours_skip_off",
    "PyTorch, skipping on": "ours_skip_on",
    "onnxruntime, skipping off": "onnx_skip_off",
    "onnxruntime, skipping on": "onnx_skip_on",
}
"""Rows of a benchmark."""


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
    lines = aligned([[*HEADER, *times], *(summary_rows(record, lengths) for record in records)])
    failed = [f"{r['name']} {r['status']}" for r in records if "wer" in r and r["status"] != "ok"]
    data, environment = report["data"], report["environment"]
    about = (
        f"{data['dir']}: {data['utterances']} utterances, {data['words']} words, "
        f"{data['seconds']:.0f} s; {environment['cpu']}, {report['settings']['threads']} thread"
    )
    after = ["", *failed] if failed else []
    return "\n".join(["", verdict(records), "", *lines, *after, "", about])


def runtimes(report: Mapping[str, Any]) -> str:
    """Return skipping off and on in PyTorch and onnxruntime, from samples to log-probabilities.

    Args:
        report: A benchmark of the scope "model", batch 1 and one number of threads.
    """
    found = {(row["name"], row["audio_seconds"]): row for row in report["rows"]}
    lengths = sorted({row["audio_seconds"] for row in report["rows"]})
    times = [f"at {length:g} s" for length in lengths]
    times[0] = f"samples to log-probabilities, ms per s {times[0]}"
    table, failed = [["", "WER %", *times]], []
    for label, name in RUNTIMES.items():
        rows = [found[name, length] for length in lengths]
        wer, status = rows[0]["wer"], rows[0]["status"]
        cells = ["failed"] * len(rows)
        if status == "ok":
            cells = [f"{1e3 * row['median_s'] / row['measured_seconds']:.1f}" for row in rows]
        else:
            failed.append(f"{label} {status}")
        table.append([label, "" if wer is None else f"{wer:.1f}", *cells])
    return "\n".join([*aligned(table), *failed])


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Print the comparison in a few lines")
    parser.add_argument("compare_json", type=Path)
    parser.add_argument("benchmark_json", type=Path, nargs="?")
    args = parser.parse_args()
    if not args.compare_json.is_file():
        raise ValueError(f"{args.compare_json}: no such file; compare_exps (stage 16) writes it")
    print(summary(json.loads(args.compare_json.read_text(encoding="utf-8"))))
    if args.benchmark_json is not None:
        print(f"\n{runtimes(json.loads(args.benchmark_json.read_text(encoding='utf-8')))}")


if __name__ == "__main__":
    run_main(main)
