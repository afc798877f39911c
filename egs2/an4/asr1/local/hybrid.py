#!/usr/bin/env python3
"""Joint CTC/attention decoding by ESPnet's beam search: WER and time with skipping on and off.

::

    python local/hybrid.py --data dump/raw/test --output exp/hybrid/hybrid.json \\
        --row stock exp/asr_conformer_aed_seed1 \\
        --row "ours, off" exp/asr_layerskip_aed_seed1 threshold=off \\
        --row "ours, on" exp/asr_layerskip_aed_seed1

A row is one of ``espnet-layerskip compare``, with one more key, ``drop=P``: frames that are blank
with more than this probability, and frames that skipped layers, are left out of the CTC scores
(``drop_threshold``). Every row is decoded with each CTC weight, and by greedy CTC search, where the
encoder takes most of the time.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from espnet_layerskip.evaluation.decode import Decoded, decode
from espnet_layerskip.evaluation.environment import (
    environment_record,
    finish_record,
    relative,
    typed,
)
from espnet_layerskip.evaluation.experiment import load_experiment
from espnet_layerskip.evaluation.inputs import Speech, TestSet, load_test_set, spread_over_durations
from espnet_layerskip.evaluation.rows import Row, check_names, custom_row
from espnet_layerskip.evaluation.scoring import (
    MAX_WER_POINTS,
    Interval,
    check_hypotheses,
    error_rate,
    judge,
    paired_bootstrap,
    score,
    words,
)
from espnet_layerskip.evaluation.systems import System
from espnet_layerskip.evaluation.tables import markdown_table
from espnet_layerskip.evaluation.timing import num_threads, summary, time_interleaved
from espnet_layerskip.files import run_main, write_text

DROP = "drop="
GREEDY = "greedy CTC"
HEADER = ("row", "WER %", "against off", "against stock", "skipped %", "encoder", "search", "total")
GAINS = ("row", "encoder, share of the total", "saved of the encoder", "saved of the total")
ABOUT = f"""\
Encoder, search and total: milliseconds for a second of audio, from samples to text, median of
interleaved passes (min to max). Search is the total less the encoder: features, scores of CTC head
and decoder, the beam. Saved: against the same weights and encoder at full depth, median over the
passes. Against: WER in points with its 95 % interval (paired bootstrap over utterances; one seed).
A row whose WER is more than {MAX_WER_POINTS:g} points above the same weights at full depth is
marked failed."""


@dataclass(frozen=True)
class Measured:
    """A row under one search: what ran, and what came of it."""

    row: Row
    dropping: bool
    system: System
    decoded: Decoded
    counts: Mapping[str, Any]


def searches(weights: Sequence[float], beam_size: int) -> dict[str, dict[str, Any]]:
    """Return by name the arguments of greedy CTC search, and of ESPnet's with each CTC weight."""
    beam = {"decoder_type": "espnet", "beam_size": beam_size}
    found = {f"beam {beam_size}, CTC weight {w:g}": beam | {"ctc_weight": w} for w in weights}
    return {GREEDY: {"decoder_type": "greedy"}, **found}


def hybrid_row(items: Sequence[str]) -> tuple[Row, str | None]:
    """Return a row and its drop_threshold, of ``NAME EXPDIR [KEY=VALUE ...] [drop=P]``."""
    drops = [item.removeprefix(DROP) for item in items[2:] if item.startswith(DROP)]
    rest = [*items[:2], *(item for item in items[2:] if not item.startswith(DROP))]
    return custom_row(rest), (drops[-1] if drops else None)


def measure(
    search: str,
    arguments: Mapping[str, Any],
    rows: Sequence[tuple[Row, str | None]],
    data: TestSet,
    repeats: int,
    max_timed: int | None,
    log: Callable[[str], object] = print,
) -> list[dict[str, Any]]:
    """Decode, score and time all rows under one search.

    Args:
        search: Its name. Greedy search leaves out the rows that drop frames: it drops what it need
            not see.
        arguments: Of `espnet_layerskip.Speech2Text`.
        rows: With their drop_threshold; the first stock one is the stock twin.
        data: Test set.
        repeats: Timed passes; 0 = no timing.
        max_timed: Utterances of a timed pass.
        log: Takes lines about the progress.

    Returns:
        A record for each row.
    """
    found = []
    for row, drop in rows:
        if search == GREEDY and drop is not None:
            continue
        [exp] = row.exps
        dropping = {} if drop is None else {"drop_threshold": drop}
        experiment = load_experiment(exp, **arguments, **dropping)
        system = System(experiment, row.settings)
        log(f"{search}: {row.name}")
        [decoded] = decode([system], data)
        check_hypotheses(data.text, decoded.hyps)
        counts = score(data.text, decoded.hyps, words)
        found.append(Measured(row, drop is not None, system, decoded, counts))
    records = [_record(one, found) for one in found]
    if repeats:
        speech = spread_over_durations(data.speech, max_timed)
        log(f"{search}: timing {len(found)} rows")
        for record, one in zip(records, _times(found, speech, repeats), strict=True):
            record |= one
    return [{"under": search, **record} for record in records]


def _times(
    rows: Sequence[Measured], speech: Sequence[Speech], repeats: int
) -> list[dict[str, Any]]:
    """Return "encoder", "search" and "total" of each row, ms for a second of audio."""
    spent: dict[str, list[float]] = {one.row.name: [] for one in rows}

    def run(name: str, system: System, wave: torch.Tensor) -> None:
        [found] = system.speech2text.recognize([wave])
        spent[name].append(found.encoder_seconds)

    def bind(one: Measured, wave: torch.Tensor) -> Callable[[], None]:
        return lambda: run(one.row.name, one.system, wave)

    waves = [torch.from_numpy(s.samples) for s in speech]
    inputs = [{one.row.name: bind(one, wave) for one in rows} for wave in waves]
    totals = time_interleaved(inputs, repeats)
    seconds, records = sum(s.seconds for s in speech), []
    for one in rows:
        each = spent[one.row.name][len(waves) :]  # without the warm-up
        encoder = [sum(each[i : i + len(waves)]) for i in range(0, len(each), len(waves))]
        total = totals[one.row.name]
        parts = {
            "encoder": encoder,
            "search": [t - e for t, e in zip(total, encoder, strict=True)],
            "total": total,
        }
        records.append({name: summary(taken, seconds, "ms") for name, taken in parts.items()})
    return records


def _record(one: Measured, rows: Sequence[Measured]) -> dict[str, Any]:
    """Return the accuracy of a row beside the same weights and encoder at full depth, and stock."""
    full = [r for r in rows if r.system.settings.full_depth and not r.dropping]
    stock, off = (full[0] if full else None), None
    if one not in full:
        off = next((r for r in full if _encoder(r) == _encoder(one)), None)
    wer = error_rate(one.counts.values())
    reference = None if off is None else error_rate(off.counts.values())
    return {
        "name": one.row.name,
        "exp": relative(one.row.exps[0]),
        "sha256": one.system.experiment.sha256,
        "what": one.system.describe(),
        "wer": wer,
        "off": None if off is None else off.row.name,
        "wer_against_off": _interval(one, off),
        "wer_against_stock": None if one is stock else _interval(one, stock),
        "skip_ratio": one.decoded.skipped.ratio,
        "ceiling": one.decoded.skipped.ceiling,
        "status": judge(wer, reference, MAX_WER_POINTS),
    }


def _encoder(one: Measured) -> tuple[str, str]:
    return one.system.experiment.sha256, type(one.system.encoder).__name__


def _interval(one: Measured, base: Measured | None) -> dict[str, float] | None:
    if base is None:
        return None
    errors, before = ([c.errors for c in m.counts.values()] for m in (one, base))
    return asdict(paired_bootstrap(errors, before, [c.words for c in base.counts.values()]))


def gains(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return what skipping saves of the encoder, and how much of that is left of the total.

    Returns:
        For each skipping row that was timed, in percent: "share", the encoder's of the total
        at full depth; "encoder" and "total", what is saved of them, median over the passes of
        the ratio to the row at full depth.
    """
    by_name = {r["name"]: r for r in records}
    found = []
    for record in records:
        off = by_name.get(record["off"] or "")
        if off is None or "total" not in record:
            continue
        saved = {}
        for part in ("encoder", "total"):
            pairs = zip(record[part]["raw_ms"], off[part]["raw_ms"], strict=True)
            saved[part] = 100.0 * (1.0 - statistics.median(a / b for a, b in pairs))
        share = 100.0 * off["encoder"]["median_ms"] / off["total"]["median_ms"]
        found.append({"name": record["name"], "share": share, **saved})
    return found


def hybrid_tables(report: Mapping[str, Any]) -> str:
    """Return the part of the page about searches."""
    parts = []
    for name in dict.fromkeys(r["under"] for r in report["rows"]):
        records = [r for r in report["rows"] if r["under"] == name]
        parts += [
            f"### {name[0].upper()}{name[1:]}",
            markdown_table(HEADER, [_cells(r) for r in records]),
        ]
        if saved := gains(records):
            cells = [
                [g["name"], *(f"{g[k]:.1f} %" for k in ("share", "encoder", "total"))]
                for g in saved
            ]
            parts.append(markdown_table(GAINS, cells))
    timed = (
        "Timed: {repeats} passes over {timed_utterances} utterances spread over the durations, "
        "{threads} thread(s)."
    )
    return "\n\n".join([*parts, timed.format(**report["settings"])])


def _cells(record: Mapping[str, Any]) -> list[str]:
    against = [record["wer_against_off"], record["wer_against_stock"]]
    times = [record.get(part) for part in ("encoder", "search", "total")]
    failed = "" if record["status"] == "ok" else " (failed)"
    return [
        record["name"] + failed,
        f"{record['wer']:.2f}",
        *("" if d is None else str(Interval(**d)) for d in against),
        f"{100 * record['skip_ratio']:.1f}",
        *(
            "" if t is None else f"{t['median_ms']:.1f} ({t['min_ms']:.1f} to {t['max_ms']:.1f})"
            for t in times
        ),
    ]


def main(cmd: Sequence[str] | None = None) -> None:
    """Run the command; ``cmd`` stands in for the command line's arguments."""
    parser = argparse.ArgumentParser(prog="hybrid", description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--data", type=Path, required=True, help="wav.scp, text and utt2spk")
    add("--output", type=Path, required=True, help="JSON file to write")
    add("--row", nargs="+", action="append", required=True, metavar="NAME EXPDIR KEY=VALUE")
    add("--ctc-weight", type=float, nargs="+", default=[0.3, 0.5], help="of the beam search")
    add("--beam-size", type=int, default=10)
    add("--repeats", type=int, default=5, help="timed passes, 0 = no timing")
    add("--max-timed", type=int, help="utterances of a timed pass [the whole set]")
    add("--num-threads", type=int, default=1)
    args = parser.parse_args(cmd)
    logging.getLogger().setLevel(logging.ERROR)
    environment, data = environment_record(), load_test_set(args.data)
    rows = [hybrid_row(items) for items in args.row]
    check_names([row for row, _ in rows])
    records = []
    with num_threads(args.num_threads):
        for search in searches(args.ctc_weight, args.beam_size).items():
            records += measure(*search, rows, data, args.repeats, args.max_timed)
    timed = min(args.max_timed or len(data.speech), len(data.speech))
    settings = {"repeats": args.repeats, "timed_utterances": timed, "threads": args.num_threads}
    report = {
        "environment": finish_record(environment),
        "command": typed(["python3", "local/hybrid.py", *(sys.argv[1:] if cmd is None else cmd)]),
        "data": {"dir": relative(args.data), **data.describe()},
        "settings": settings,
        "rows": records,
    }
    write_text(args.output, json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    print(hybrid_tables(report))


if __name__ == "__main__":
    run_main(main)
