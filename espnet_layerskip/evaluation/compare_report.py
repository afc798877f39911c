"""The comparison as a table for people and as data for programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from os.path import commonprefix
from string import ascii_letters, digits
from typing import Any

from espnet_layerskip.evaluation.compare import RowResult
from espnet_layerskip.evaluation.decode import count_too_short
from espnet_layerskip.evaluation.environment import describe
from espnet_layerskip.evaluation.scoring import (
    MANY_SPEAKERS,
    Interval,
    judge,
    paired_bootstrap,
)
from espnet_layerskip.evaluation.tables import (
    between,
    bullets,
    folded,
    folded_command,
    markdown_table,
    over_seeds,
    page,
)
from espnet_layerskip.evaluation.timing import summary
from espnet_layerskip.evaluation.verdict import verdict

HEADER = ("system", "WER %", "against skipping off", "against stock", "skipped %", "GFLOPs")
MORE = ("system", "CER %", "TER %", "parameters (M)", "ceiling %")
ABOUT = """\
Against: WER in points with its 95 % interval. Skipped: frames. GFLOPs and ms: the encoder's, for a
second of audio."""
NOTES = """\
Greedy decoding, batch 1. WER, CER and TER: mean over the training seeds, with the lowest and the
highest where there are several. Frames skipped: share of encoder frames that skipped at least
one layer. Ceiling: s*(L-K)/L, the share of the blocks' work that was not done. Encoder time:
features to encoder_out, median of {repeats} interleaved passes (min to max) over
{timed}, {threads} thread(s), first experiment of each row. FLOPs: 2 per
multiply-accumulate, counted over the whole test set. Differences of WER: percent points with the
95 % interval of a paired bootstrap over the test utterances, or over speakers from {many} of them
on (not over training seeds), errors averaged over seeds. A row whose transcripts are missing or
empty, or whose WER is more than {allowed:g} points above the same weights at full depth, is
printed as failed and not as fast."""


def compare_records(
    results: Sequence[RowResult], audio_seconds: float, max_wer_points: float
) -> list[dict[str, Any]]:
    """Return a JSON-able record for each row, all raw timings included."""
    return [_record(result, results, audio_seconds, max_wer_points) for result in results]


def compare_table(records: Sequence[Mapping[str, Any]]) -> str:
    """Return the records as a markdown table."""
    lengths = _lengths(records)
    times = [f"ms at {length} s" for length in lengths] or ["ms"]
    return markdown_table([*HEADER, *times], [_cells(record, lengths) for record in records])


def compare_page(report: Mapping[str, Any]) -> str:
    """Return the whole page: where it comes from, the tables, how to read them, experiments.

    Args:
        report: With environment, command, data, settings, rows and experiments.
    """
    data, rows, experiments = report["data"], report["rows"], report["experiments"]
    settings = report["settings"]
    timed = f"{settings['timed_utterances']} utterances"
    if settings.get("timed_seconds"):
        timed = "inputs of each length, made of whole utterances of a speaker"
    allowed = settings["max_wer_points"]
    notes = NOTES.format(**settings, timed=timed, allowed=allowed, many=MANY_SPEAKERS)
    about_data = about_test_set(data)
    if short := count_too_short(data.get("too_short", ())):
        about_data += f"; {short}"
    failed = bullets([f"{r['name']}: {r['status']}" for r in rows if r["status"] != "ok"])
    return page(
        "Comparison of experiments",
        [*describe(report["environment"]), about_data],
        verdict(rows),
        compare_table(rows),
        ABOUT,
        folded(
            "CER, TER, parameters, ceiling" + (", failures" if failed else ""),
            markdown_table(MORE, [_more(r) for r in rows]),
            failed and f"Failed:\n\n{failed}",
        ),
        folded("How to read the tables", notes),
        folded(
            "Settings, experiments, checkpoints",
            markdown_table(
                ("system", "settings", "experiments"),
                [(r["name"], r["settings"], braced(r["exps"])) for r in rows],
            ),
            markdown_table(
                ("experiment", "checkpoint", "SHA-256", "gate"),
                [(e["exp"], e["checkpoint"], e["sha256"][:16], e["chosen"]) for e in experiments],
            ),
        ),
        folded_command(report["command"]),
    )


def about_test_set(data: Mapping[str, Any]) -> str:
    """Return a line on the test set of a report."""
    return (
        f"- test set: {data['dir']}, {data['utterances']} utterances, {data['words']} words, "
        f"{data['seconds']:.1f} s"
    )


def braced(names: Sequence[str]) -> str:
    """Return names with what they share written once.

    >>> braced(["exp/a_seed1", "exp/a_seed2"])
    'exp/a_seed{1,2}'
    >>> braced(["exp/a1_trained", "exp/a2_trained/rejected"])
    'exp/a{1_trained,2_trained/rejected}'
    """
    if len(names) < 2:
        return "".join(names)
    start = commonprefix(names)  # noqa: RUF071 (letters are meant)
    ends = [name.removeprefix(start)[::-1] for name in names]
    end = commonprefix(ends)[::-1].lstrip(ascii_letters + digits)  # noqa: RUF071 (whole words)
    return f"{start}{{{','.join(e[len(end) :][::-1] for e in ends)}}}{end}"


def _record(
    result: RowResult, results: Sequence[RowResult], audio_seconds: float, max_wer_points: float
) -> dict[str, Any]:
    record: dict[str, Any] = {
        "name": result.row.name,
        "exps": list(result.row.exps),
        "settings": result.row.describe() or "as trained",
        "status": f"failed: {result.failure}",
    }
    if not result.seeds:
        return record
    stock = next((r for r in results if r.is_stock), None)
    same = (r for r in results if r.full_depth and r.weights == result.weights)
    off = None if result.full_depth else next(same, None)
    skipped, system = result.skipped(), result.seeds[0].system
    wer = result.rates("wer")
    flops = sum(s.decoded.encoder_flops for s in result.seeds) / len(result.seeds)
    reference = None if off is None else sum(off.rates("wer")) / len(wer)
    record |= {
        "settings": system.how,
        "wer": wer,
        "cer": result.rates("cer"),
        "ter": result.rates("ter"),
        "num_params": sum(p.numel() for p in system.model.parameters()),
        "skip_ratio": skipped.ratio,
        "ceiling": skipped.ceiling,
        "encoder_flops_per_second": flops / audio_seconds,
        "off": None if off is None else off.row.name,
        "stops": system.settings.exit_layer is not None,
        "wer_against_off": _interval(result, off),
        "wer_against_stock": None if result is stock else _interval(result, stock),
        "status": judge(sum(wer) / len(wer), reference, max_wer_points),
    }
    if result.times:
        passes, seconds = zip(*result.times.values(), strict=True)
        whole = [sum(parts) for parts in zip(*passes, strict=True)]
        record["encoder_time_per_second"] = summary(whole, sum(seconds), "ms")
        record["encoder_time_by_length"] = {
            f"{n:g}": summary(taken, audio, "ms") for n, (taken, audio) in result.times.items() if n
        }
    return record


def _interval(result: RowResult, baseline: RowResult | None) -> dict[str, float] | None:
    if baseline is None:
        return None
    errors, before = result.utterance_errors(), baseline.utterance_errors()
    found = paired_bootstrap(errors, before, result.num_words(), speakers=result.speakers)
    return asdict(found)


def _lengths(records: Sequence[Mapping[str, Any]]) -> list[str]:
    return next((list(found) for r in records if (found := r.get("encoder_time_by_length"))), [])


def _cells(record: Mapping[str, Any], lengths: Sequence[str]) -> list[str]:
    if "wer" not in record:
        return [record["name"], *["failed"] * (len(HEADER) - 1 + max(1, len(lengths)))]
    times: list[Any] = [record.get("encoder_time_per_second")]
    if lengths:
        times = [record["encoder_time_by_length"][length] for length in lengths]
    shown = [
        "failed"
        if record["status"] != "ok"
        else "not timed"
        if time is None
        else between(time["median_ms"], time["min_ms"], time["max_ms"])
        for time in times
    ]
    against = [record["wer_against_off"], record["wer_against_stock"]]
    return [
        record["name"],
        over_seeds(record["wer"]),
        *("" if d is None else str(Interval(**d)) for d in against),
        f"{100 * record['skip_ratio']:.1f}",
        f"{record['encoder_flops_per_second'] / 1e9:.3f}",
        *shown,
    ]


def _more(record: Mapping[str, Any]) -> list[str]:
    if "wer" not in record:
        return [record["name"], *["failed"] * (len(MORE) - 1)]
    return [
        record["name"],
        over_seeds(record["cer"]),
        over_seeds(record["ter"]),
        f"{record['num_params'] / 1e6:.2f}",
        f"{100 * record['ceiling']:.1f}",
    ]
