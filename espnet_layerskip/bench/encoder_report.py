"""Encoder benchmark as a table for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from espnet_layerskip.bench.encoder_bench import FULL, STOCK
from espnet_layerskip.bench.environment import describe
from espnet_layerskip.bench.report import markdown_table

HEADER = (
    "row",
    "ms per batch (min to max)",
    "times as fast as skipping off",
    "times as fast as stock",
    "GFLOPs",
    "frames skipped %",
    "ceiling %",
    "realised %",
    "realised, blocks %",
    "WER %",
    "CER %",
    "status",
)

NOTES = """\
Scope: encoder only, features to encoder_out. One time is that of one batch: the pass over
{num_inputs} different inputs divided by the number of batches; median of {repeats} interleaved
passes. Ceiling: s*(L-K)/L, the share of the blocks' work that is skipped, on these inputs.
Realised: (1 - t/t_off) / ceiling, of the whole encoder's time; "blocks" relates the same saving to
the share of t_off that is not subsampling (measured in the same passes), because the subsampling
cannot be skipped. Attention is quadratic, so more than 100 % is possible on long inputs. WER and
CER: same weights and settings, greedy, whole test set, batch 1. A row whose transcripts are missing
or empty, or whose WER is more than {allowed:g} points above skipping off, is printed as failed and
not as fast; twins are other weights and are not judged. FLOPs: 2 per multiply-accumulate, counted.
"""


def encoder_page(report: Mapping[str, Any]) -> str:
    """Return the whole page; `report` has environment, command, experiment, settings and rows."""
    parts = [
        "# Encoder time",
        "",
        *describe(report["environment"]),
        f"- experiment: {report['experiment']['exp']}, {report['experiment']['checkpoint']} "
        f"(SHA-256 {report['experiment']['sha256'][:16]}), skipping: "
        f"{report['experiment']['settings']}",
        f"- test set: {report['data']['dir']}, {report['data']['utterances']} utterances",
        "- command:",
        "",
        f"      {report['command']}",
        "",
        NOTES.format(**report["settings"]),
    ]
    conditions: dict[tuple[float, int, int], list[Mapping[str, Any]]] = {}
    for row in report["rows"]:
        key = (row["seconds"], row["batch_size"], row["num_threads"])
        conditions.setdefault(key, []).append(row)
    for (seconds, batch_size, threads), rows in conditions.items():
        title = (
            f"## {seconds:g} s (mean {rows[0]['measured_seconds']:.1f} s), batch {batch_size}, "
            f"{threads} thread{'s' if threads > 1 else ''}"
        )
        parts += ["", title, "", encoder_table(rows)]
    return "\n".join([*parts, ""])


def encoder_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the rows of one condition as a markdown table."""
    times = {row["name"]: row["median_ms"] for row in rows if "median_ms" in row}
    return markdown_table(HEADER, [_cells(row, times) for row in rows])


def _cells(row: Mapping[str, Any], times: Mapping[str, float]) -> list[str]:
    failed = row["status"] != "ok"
    if "median_ms" not in row:
        return [row["name"], *["failed"] * 10, row["status"]]

    def percent(value: float | None) -> str:
        return "" if value is None else f"{100 * value:.1f}"

    time = f"{row['median_ms']:.2f} ({row['min_ms']:.2f} to {row['max_ms']:.2f})"
    faster = [
        f"{times[name] / row['median_ms']:.2f}" if name in times else "" for name in (FULL, STOCK)
    ]
    realised = [percent(row["realised_share"]), percent(row["realised_share_of_blocks"])]
    return [
        row["name"],
        "failed" if failed else time,
        *(["failed"] * 2 if failed else faster),
        f"{row['flops'] / 1e9:.3f}",
        percent(row["skip_ratio"]),
        percent(row["ceiling"]),
        *(["failed"] * 2 if failed else realised),
        *("failed" if row[kind] is None else f"{row[kind]:.2f}" for kind in ("wer", "cer")),
        row["status"],
    ]
