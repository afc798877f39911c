"""The comparison as a table for people and as data for programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from espnet_layerskip.evaluation.compare import RowResult
from espnet_layerskip.evaluation.environment import describe
from espnet_layerskip.evaluation.scoring import Interval, paired_bootstrap
from espnet_layerskip.evaluation.tables import judge, markdown_table, over_seeds

HEADER = (
    "system",
    "WER %",
    "CER %",
    "TER %",
    "parameters (M)",
    "frames skipped %",
    "ceiling %",
    "encoder ms per s of audio",
    "encoder GFLOPs per s of audio",
    "WER against skipping off",
    "WER against stock",
    "status",
)

NOTES = """\
Greedy decoding, batch 1. WER, CER and TER: mean over the training seeds, with the lowest and the
highest where there are several. Frames skipped: share of encoder frames that skipped at least
one layer. Ceiling: s*(L-K)/L, the share of the blocks' work that was not done. Encoder time:
features to encoder_out, median of {repeats} interleaved passes (min to max) over
{timed_utterances} utterances, {threads} thread(s), first experiment of each row. FLOPs: 2 per
multiply-accumulate, counted over the whole test set. Differences of WER: percent points with the
95 % interval of a paired bootstrap over the test utterances (not over training seeds), errors
averaged over seeds. A row whose transcripts are missing or empty, or whose WER is more than
{allowed:g} points above the same weights at full depth, is printed as failed and not as fast."""


def compare_records(
    results: Sequence[RowResult], audio_seconds: float, max_wer_increase: float
) -> list[dict[str, Any]]:
    """Return a JSON-able record for each row, all raw timings included."""
    stock = next((r for r in results if r.is_stock), None)
    return [
        _record(r, _off_twin(r, results), stock, audio_seconds, max_wer_increase) for r in results
    ]


def compare_table(records: Sequence[Mapping[str, Any]]) -> str:
    """Return the records as a markdown table."""
    return markdown_table(HEADER, [_cells(record) for record in records])


def compare_page(report: Mapping[str, Any]) -> str:
    """Return the whole page: where it comes from, the table, how to read it, experiments.

    Args:
        report: With environment, command, data, settings, rows and experiments.
    """
    experiments = markdown_table(
        ("experiment", "checkpoint", "SHA-256", "gate"),
        [(e["exp"], e["checkpoint"], e["sha256"][:16], e["chosen"]) for e in report["experiments"]],
    )
    rows = markdown_table(
        ("system", "settings", "experiments"),
        [(r["name"], r["settings"], ", ".join(r["exps"])) for r in report["rows"]],
    )
    return "\n".join(
        [
            "# Comparison of experiments",
            "",
            *describe(report["environment"]),
            f"- test set: {report['data']['dir']}, {report['data']['utterances']} utterances, "
            f"{report['data']['words']} words, {report['data']['seconds']:.1f} s",
            "- command:",
            "",
            f"      {report['command']}",
            "",
            compare_table(report["rows"]),
            "",
            NOTES.format(**report["settings"]),
            "",
            "## Rows and experiments",
            "",
            rows,
            "",
            experiments,
            "",
        ]
    )


def _off_twin(result: RowResult, results: Sequence[RowResult]) -> RowResult | None:
    """Return a row of the same weights at full depth; None for one that is at full depth."""
    if result.full_depth:
        return None
    return next((r for r in results if r.full_depth and r.weights == result.weights), None)


def _record(
    result: RowResult,
    off: RowResult | None,
    stock: RowResult | None,
    audio_seconds: float,
    max_wer_increase: float,
) -> dict[str, Any]:
    record: dict[str, Any] = {
        "name": result.row.name,
        "exps": list(result.row.exps),
        "settings": result.row.settings.describe() or "as trained",
        "status": f"failed: {result.failure}",
    }
    if not result.seeds:
        return record
    skipped, system = result.skipped(), result.seeds[0].system
    wer = result.rates("wer")
    flops = sum(s.decoded.encoder_flops for s in result.seeds) / len(result.seeds)
    reference = None if off is None else sum(off.rates("wer")) / len(wer)
    record |= {
        "settings": system.settings.describe(),
        "wer": wer,
        "cer": result.rates("cer"),
        "ter": result.rates("ter"),
        "num_params": system.num_params,
        "skip_ratio": skipped.ratio,
        "ceiling": skipped.ceiling,
        "encoder_flops_per_second": flops / audio_seconds,
        "wer_against_off": _interval(result, off),
        "wer_against_stock": None if result is stock else _interval(result, stock),
        "status": judge(sum(wer) / len(wer), reference, max_wer_increase),
    }
    if result.timing is not None:
        record["encoder_time_per_second"] = result.timing.scaled(1.0 / result.timed_seconds).as_ms()
    return record


def _interval(result: RowResult, baseline: RowResult | None) -> dict[str, float] | None:
    if baseline is None:
        return None
    interval = paired_bootstrap(
        result.utterance_errors(), baseline.utterance_errors(), result.num_words()
    )
    return {"difference": interval.difference, "low": interval.low, "high": interval.high}


def _cells(record: Mapping[str, Any]) -> list[str]:
    if "wer" not in record:
        return [record["name"], *["failed"] * (len(HEADER) - 2), record["status"]]
    failed = record["status"] != "ok"
    time = record.get("encoder_time_per_second")
    if failed:
        shown = "failed"
    elif time is None:
        shown = "not timed"
    else:
        shown = f"{time['median_ms']:.2f} ({time['min_ms']:.2f} to {time['max_ms']:.2f})"
    against = [record["wer_against_off"], record["wer_against_stock"]]
    return [
        record["name"],
        *(over_seeds(record[kind]) for kind in ("wer", "cer", "ter")),
        f"{record['num_params'] / 1e6:.2f}",
        f"{100 * record['skip_ratio']:.1f}",
        f"{100 * record['ceiling']:.1f}",
        shown,
        f"{record['encoder_flops_per_second'] / 1e9:.3f}",
        *("" if d is None else str(Interval(**d)) for d in against),
        record["status"],
    ]
