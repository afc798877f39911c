"""The comparison of the demo in a few lines, that of the two runtimes, and what to try next.

Example::

    python local/demo_summary.py exp/compare/compare.json exp/benchmark/benchmark.json
    python local/demo_summary.py exp/compare/compare.json exp/benchmark/benchmark.json --next
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from espnet_layerskip.evaluation.tables import aligned
from espnet_layerskip.evaluation.verdict import PAYS, judged, speed_ups, verdict
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


def next_steps(report: Mapping[str, Any], benchmark: Mapping[str, Any] | None) -> str:
    """Return what to try next, from what was found. No command overwrites what is there.

    Args:
        report: compare.json.
        benchmark: As `runtimes` takes it; None = there is none.
    """
    data, found = report["data"]["dir"], judged(report["rows"])
    steps = []
    if found is not None:
        on, off = found
        exp, speeds = on["exps"][0], speed_ups(on, off)
        stored = {one["exp"]: one["chosen"] for one in report.get("experiments", ())}
        _, off_because, why = stored.get(exp, "").partition("calibration says off: ")
        slower = [length for length, factor in speeds.items() if factor < PAYS]
        if on["status"] != "ok":
            steps.append(
                "Skipping costs too much. Where fewer frames skip:\n"
                f"espnet-layerskip compare --data {data} --exp ours={exp} --row stricter {exp} "
                "threshold=0.999 extension=1,1 --output exp/compare_stricter"
            )
        elif len(slower) < len(speeds):
            options = f"{_options(on['settings'])} " if off_because else ""
            steps.append(
                f"Skipping pays. At this setting ({on['settings']}), on audio of yours:\n"
                f"espnet-layerskip transcribe --model {exp} {options}a.wav"
            )
        if slower and on["status"] == "ok":
            where = f" on {', '.join(slower)} s" if all(slower) else ""
            steps.append(
                f"Skipping does not pay{where}. Where it does, by length, width and layer of the "
                "gate, with a\ncalculator: ../../../docs/when_does_it_pay.md"
            )
        if off_because:
            steps.append(
                f"Unless told otherwise, transcribe runs this model at full depth: {why}. More "
                "speech shows more, in folders of its own:\n"
                "./run.sh --size medium --dumpdir dump_medium --expdir exp_medium"
            )
        if benchmark is not None and (times := _faster_onnx(benchmark)):
            steps.append(
                f"onnxruntime is up to {times:.2f} times as fast as PyTorch. As graphs for it:\n"
                f"espnet-layerskip export --model {exp} --output exp/ours.onnx"
            )
    return "\n".join(f"- {step}".replace("\n", "\n    ") for step in steps)


def _options(settings: str) -> str:
    """Return the options of ``transcribe`` for settings in words.

    >>> _options("threshold=0.9 extension=0,0 context=full")
    '--blank-threshold 0.9 --spike-extension 0,0'
    """
    values = dict(item.split("=") for item in settings.split() if "=" in item)
    names = {"threshold": "--blank-threshold", "extension": "--spike-extension"}
    return " ".join(f"{names[key]} {values[key]}" for key in names if key in values)


def _faster_onnx(report: Mapping[str, Any]) -> float:
    """Return how many times as fast onnxruntime is at most, at full depth or not; 0 = never."""
    times = {(row["name"], row["audio_seconds"]): row["median_s"] for row in report["rows"]}
    ratios = [
        times[f"ours_skip_{how}", length] / seconds
        for (name, length), seconds in times.items()
        for how in ("off", "on")
        if name == f"onnx_skip_{how}" and seconds and times[f"ours_skip_{how}", length]
    ]
    return best if (best := max(ratios, default=0.0)) >= PAYS else 0.0


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Print the comparison in a few lines")
    parser.add_argument("--next", action="store_true", help="print what to try next instead")
    parser.add_argument("compare_json", type=Path)
    parser.add_argument("benchmark_json", type=Path, nargs="?")
    args = parser.parse_args()
    if not args.compare_json.is_file():
        raise ValueError(f"{args.compare_json}: no such file; compare_exps (stage 16) writes it")
    report = json.loads(args.compare_json.read_text(encoding="utf-8"))
    benchmark = None
    if args.benchmark_json is not None:
        benchmark = json.loads(args.benchmark_json.read_text(encoding="utf-8"))
    if args.next:
        print(next_steps(report, benchmark))
        return
    print(summary(report))
    if benchmark is not None:
        print(f"\n{runtimes(benchmark)}")


if __name__ == "__main__":
    run_main(main)
