"""A benchmark as a page for people."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from espnet_layerskip.evaluation.contenders import FULL, GREEDY_OFF, STOCK
from espnet_layerskip.evaluation.decode import count_too_short
from espnet_layerskip.evaluation.environment import describe
from espnet_layerskip.evaluation.parts import PARTS
from espnet_layerskip.evaluation.speedups import CONDITION, SPEEDUPS
from espnet_layerskip.evaluation.tables import (
    bullets,
    folded,
    folded_command,
    markdown_table,
    page,
    threads,
)

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
multiply-accumulate of what was timed, counted (not in onnxruntime). Rows named stock are ESPnet's
classes with these weights, or those of the twin that their settings in the JSON file name; sdpa
is its option use_sdpa. Rows named onnx run the exported model."""
HEADER = ("row", "ms per batch (min to max)", "times off", "times stock", "skipped %", "WER %")
MORE = ("row", "CER %", "GFLOPs", "ceiling %", "realised %", "realised, blocks %")


def benchmark_page(report: Mapping[str, Any]) -> str:
    """Return the whole page of what `benchmark.benchmark` returned."""
    environment, rows = report["environment"], report["rows"]
    model, data, settings = (environment[name] for name in ("model", "data", "settings"))
    notes = NOTES.format(repeats=settings["repeats"], allowed=settings["max_wer_increase_percent"])
    starts = ", ".join(
        f"{who} {'failed' if s is None else f'{s:.1f} s'}"
        for who, s in environment["start_s"].items()
    )
    short = count_too_short({utt for row in rows for utt in row.get("too_short", ())})
    facts = [
        *describe(environment),
        f"- PyTorch threads, pinned: {', '.join(map(str, sorted({r['threads'] for r in rows})))}",
        f"- model: {model['exp']}, {model['checkpoint']} (SHA-256 {model['sha256'][:16]}), "
        f"skipping: {model['skipping']}",
        f"- test set: {data['wav_scp']}, {data['utterances']} utterances, {data['words']} words, "
        f"{data['seconds']:.0f} s; speakers: {data['speakers']}" + (short and f"; {short}"),
        f"- in no row: start of a process with its imports, once: {starts or 'not measured'}; "
        f"loading the model {environment['load_s']:.1f} s",
    ]
    conditions: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        key = tuple(row[name] for name in ("scope", *CONDITION))
        conditions.setdefault(key, []).append(row)
    return page(
        "Benchmark",
        facts,
        folded("How to read the tables", notes),
        folded_command(environment["command"]),
        *_speedups_section(report),
        *_profile_section(report["profile"]),
        *(part for found in conditions.values() for part in _scope_section(found)),
    )


def summary(report: Mapping[str, Any]) -> str:
    """Return the speedups as a table: in the headline's condition, or else the first one's."""
    at = _headline(report)
    lines = [(n, _ratio(at[n]), at["reasons"].get(n, "")) for n in SPEEDUPS]
    return markdown_table(("", f"times as fast, {_where(at)}", "why there is none"), lines)


def scope_tables(rows: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    """Return the rows of one scope and condition as two tables: what matters most, and the rest."""
    times = {row["name"]: row["median_s"] for row in rows if row["median_s"] is not None}
    _, *others = SCOPE_NOTES[rows[0]["scope"]]
    return (
        markdown_table(HEADER, [_cells(row, [times.get(name) for name in others]) for row in rows]),
        markdown_table(MORE, [_more(row) for row in rows]),
    )


def _scope_section(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    first = rows[0]
    about, off, stock = SCOPE_NOTES[first["scope"]]
    seconds = (
        f"{first['audio_seconds']:g} s (mean {first['measured_seconds']:.1f} s, inputs: "
        f"{first['num_inputs']})"
    )
    failed = bullets([f"{r['name']}: {_short(r['status'])}" for r in rows if r["status"] != "ok"])
    main, more = scope_tables(rows)
    return [
        f"## {first['scope']}: {seconds}, batch {first['batch_size']}, {threads(first['threads'])}",
        f"From {about}. Times off: times as fast as {off};\ntimes stock: as {stock}.",
        main,
        folded(
            "CER, GFLOPs, ceiling" + (", failures" if failed else ""),
            more,
            failed and f"Failed:\n\n{failed}",
        ),
    ]


def _cells(row: Mapping[str, Any], others: Sequence[float | None]) -> list[str]:
    median, low, high = (_number(row, name, 2, 1e3) for name in ("median_s", "min_s", "max_s"))
    counts = _counts(row)
    faster = [_ratio(other / row["median_s"] if other and counts else None) for other in others]
    return [
        row["name"],
        f"{median} ({low} to {high})" if counts else "failed",
        *(faster if counts else ["failed"] * len(others)),
        _number(row, "skip_ratio", 1, 100.0),
        _number(row, "wer", 2) or "failed",
    ]


def _more(row: Mapping[str, Any]) -> list[str]:
    shares = [_number(row, n, 1, 100.0) for n in ("ceiling_share", "ceiling_share_of_blocks")]
    return [
        row["name"],
        _number(row, "cer", 2) or "failed",
        _number(row, "flops", 3, 1e-9),
        _number(row, "ceiling", 1, 100.0),
        *(shares if _counts(row) else ["failed"] * len(shares)),
    ]


def _speedups_section(report: Mapping[str, Any]) -> list[str]:
    at, conditions = _headline(report), report["speedups"]["conditions"]
    used = [n for n in SPEEDUPS if any(c[n] is not None for c in conditions)]
    table = markdown_table(
        ("times as fast", *map(_where, conditions)),
        [(n, *(_ratio(c[n]) for c in conditions)) for n in used],
    )
    reasons = bullets([f"{name}: {_short(why)}" for name, why in at["reasons"].items()])
    return ["## Speedups", table, folded(f"Why others are missing ({_where(at)})", reasons)]


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
    about = (
        f"{_where(first)}; medians. Lower and upper: layers up to the first gate and above it. "
        "Gate: deciding, gathering and scattering frames. Other: reading the file, text and times, "
        "and Python in between."
    )
    return [
        "## Where the time goes, end to end",
        textwrap.fill(about, 100),
        markdown_table(header, lines),
    ]


def _headline(report: Mapping[str, Any]) -> Mapping[str, Any]:
    headline, conditions = report["speedups"]["headline"], report["speedups"]["conditions"]
    found: Mapping[str, Any] = next(
        (c for c in conditions if headline.items() <= c.items()), conditions[0]
    )
    return found


def _where(at: Mapping[str, Any]) -> str:
    return f"{at['audio_seconds']:g} s, batch {at['batch_size']}, {threads(at['threads'])}"


def _counts(row: Mapping[str, Any]) -> bool:
    """Return whether the row's speed may be shown."""
    return row["median_s"] is not None and row["status"] == "ok"


def _number(row: Mapping[str, Any], name: str, digits: int, factor: float = 1.0) -> str:
    return "" if row[name] is None else f"{factor * row[name]:.{digits}f}"


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _short(reason: str) -> str:
    return textwrap.shorten(reason, 160, placeholder=" ...")
