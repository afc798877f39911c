"""A benchmark as a page for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from espnet_layerskip.evaluation.entries import GREEDY_OFF
from espnet_layerskip.evaluation.environment import describe
from espnet_layerskip.evaluation.parts import PARTS
from espnet_layerskip.evaluation.speedups import SPEEDUPS
from espnet_layerskip.evaluation.tables import markdown_table
from espnet_layerskip.evaluation.variants import FULL, STOCK

# Of each scope: what it is, and the two rows that the others are compared with.
SCOPE_NOTES = {
    "encoder": ("features, computed before, to encoder_out", FULL, STOCK),
    "model": ("samples in memory to log-posteriors: frontend, encoder, head", FULL, STOCK),
    "e2e": ("wave file on a disk to text", GREEDY_OFF, "stock_beam10"),
}
NOTES = """\
One time is that of one batch: the pass over all inputs divided by the number of batches; median of
{repeats} interleaved passes. WER and CER: the same weights and settings on the whole test set, one
utterance at a time. A row without transcripts, or whose WER is more than {allowed:g} % (relative)
above that of the same weights and search at full depth, is printed as failed and not as fast. Twins
and ESPnet's own searches are not judged; a speedup over them is not printed where our WER is more
than {allowed:g} % above theirs. Ceiling: s*(L-K)/L, the share of the blocks' work skipped on
these inputs. Realised: (1 - t/t_full) / ceiling, t_full of the same form and search at full depth;
"blocks" relates the same saving to the share of t_full that is not subsampling, which cannot be
skipped. Attention is quadratic: more than 100 % is possible on long inputs. FLOPs: 2 per
multiply-accumulate of what was timed, counted. Rows named stock are ESPnet's classes with these
weights, or those of the twin that their settings in the JSON file name."""
HEADER = (
    *("row", "ms per batch (min to max)", "times as fast as {}", "times as fast as {}"),
    *("GFLOPs", "frames skipped %", "ceiling %", "realised %", "realised, blocks %"),
    *("WER %", "CER %", "status"),
)


def benchmark_page(report: Mapping[str, Any]) -> str:
    """Return the whole page of what `benchmark.benchmark` returned."""
    environment = report["environment"]
    model, data, settings = (environment[name] for name in ("model", "data", "settings"))
    rows = report["rows"]
    threads = sorted({row["threads"] for row in rows})
    notes = NOTES.format(repeats=settings["repeats"], allowed=settings["max_wer_increase_percent"])
    starts = ", ".join(
        f"{who} {'failed' if s is None else f'{s:.1f} s'}"
        for who, s in environment["start_s"].items()
    )
    parts = [
        "# Benchmark",
        "",
        *describe(environment),
        f"- PyTorch threads, pinned: {', '.join(map(str, threads))}",
        f"- model: {model['exp']}, {model['checkpoint']} (SHA-256 {model['sha256'][:16]}), "
        f"skipping: {model['skipping']}",
        f"- test set: {data['wav_scp']}, {data['utterances']} utterances, {data['words']} words, "
        f"{data['seconds']:.0f} s; speakers: {data['speakers']}",
        f"- in no row: start of a process with its imports, once: {starts or 'not measured'}; "
        f"loading the model {environment['load_s']:.1f} s",
        "- command:",
        "",
        f"      {environment['command']}",
        "",
        notes,
        "",
        "## Speedups",
        "",
        summary(report),
        "",
        _conditions_table(report["speedups"]["conditions"]),
        *_profile_section(report["profile"]),
    ]
    conditions: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        key = tuple(row[name] for name in ("scope", "audio_seconds", "batch_size", "threads"))
        conditions.setdefault(key, []).append(row)
    for (scope, seconds, batch_size, n), found in conditions.items():
        title = (
            f"## {scope}: {seconds:g} s (mean {found[0]['measured_seconds']:.1f} s, "
            f"inputs: {found[0]['num_inputs']}), batch {batch_size}, {_threads(n)}"
        )
        parts += ["", title, "", f"From {SCOPE_NOTES[scope][0]}.", "", scope_table(scope, found)]
    return "\n".join([*parts, ""])


def summary(report: Mapping[str, Any]) -> str:
    """Return the speedups as a table: in the headline's condition, or else the first one's."""
    headline, conditions = report["speedups"]["headline"], report["speedups"]["conditions"]
    at = next((c for c in conditions if headline.items() <= c.items()), conditions[0])
    title = f"times as fast, {at['audio_seconds']:g} s, batch {at['batch_size']}"
    lines = [(n, _ratio(at[n]), at["reasons"].get(n, "")) for n in SPEEDUPS]
    header = ("", f"{title}, {_threads(at['threads'])}", "why there is none")
    return markdown_table(header, lines)


def scope_table(scope: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the rows of one scope and condition as a markdown table."""
    others = SCOPE_NOTES[scope][1:]
    names = iter(others)
    header = [next(names) if "{}" in h else h for h in HEADER]
    header = [f"times as fast as {h}" if h in others else h for h in header]
    times = {row["name"]: row["median_s"] for row in rows if row["median_s"] is not None}
    return markdown_table(
        header, [_cells(row, [times.get(name) for name in others]) for row in rows]
    )


def _cells(row: Mapping[str, Any], others: Sequence[float | None]) -> list[str]:
    timed = row["median_s"] is not None and row["status"] == "ok"

    def number(name: str, digits: int, factor: float = 1.0) -> str:
        return "" if row[name] is None else f"{factor * row[name]:.{digits}f}"

    def shown(text: str) -> str:
        return text if timed else "failed"

    median, low, high = (number(name, 2, 1e3) for name in ("median_s", "min_s", "max_s"))
    faster = [
        "" if other is None or not timed else f"{other / row['median_s']:.2f}" for other in others
    ]
    return [
        row["name"],
        shown(f"{median} ({low} to {high})"),
        *map(shown, faster),
        number("flops", 3, 1e-9),
        number("skip_ratio", 1, 100.0),
        number("ceiling", 1, 100.0),
        shown(number("ceiling_share", 1, 100.0)),
        shown(number("ceiling_share_of_blocks", 1, 100.0)),
        number("wer", 2) or "failed",
        number("cer", 2) or "failed",
        row["status"],
    ]


def _conditions_table(conditions: Sequence[Mapping[str, Any]]) -> str:
    used = [n for n in SPEEDUPS if any(c[n] is not None for c in conditions)]
    return markdown_table(
        ("seconds", "batch", "threads", *used),
        [
            (
                f"{c['audio_seconds']:g}",
                str(c["batch_size"]),
                str(c["threads"]),
                *(_ratio(c[n]) for n in used),
            )
            for c in conditions
        ],
    )


def _profile_section(profiles: Sequence[Mapping[str, Any]]) -> list[str]:
    if not profiles:
        return []
    first = profiles[0]
    header = ("part, ms", *(p["name"] for p in profiles))
    lines = [(part, *(f"{1e3 * p['parts_s'][part]:.2f}" for p in profiles)) for part in PARTS]
    lines.append(("total", *(f"{1e3 * p['total_s']:.2f}" for p in profiles)))
    lines.append(("encoder", *(f"{1e3 * p['encoder_s']:.2f}" for p in profiles)))
    shares = (p["gate_share_of_encoder"] for p in profiles)
    gate = ("" if share is None else f"{100 * share:.1f} %" for share in shares)
    lines.append(("gate, share of the encoder", *gate))
    return [
        "",
        "## Where the time goes, end to end",
        "",
        f"{first['audio_seconds']:g} s, batch 1, {_threads(first['threads'])}; medians. Lower and "
        "upper: layers up to the first gate and above it. Gate: deciding, gathering and scattering "
        "frames. Other: reading the file, text and times, and Python in between.",
        "",
        markdown_table(header, lines),
    ]


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _threads(n: int) -> str:
    return f"{n} thread{'s' if n > 1 else ''}"
