"""Time of a benchmark's rows: all rows of a scope interleaved, with what they did."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from espnet_layerskip.evaluation.accuracy import Accuracy, Log, reason
from espnet_layerskip.evaluation.conditions import Condition
from espnet_layerskip.evaluation.entries import Entries, Entry
from espnet_layerskip.evaluation.flops import count_flops
from espnet_layerskip.evaluation.systems import Skipped
from espnet_layerskip.evaluation.timing import Case, Timing, num_threads, time_interleaved

Run = Callable[[], Any]
MEASURED = (
    *("settings", "full_depth", "median_s", "min_s", "max_s", "raw_s", "flops", "skip_ratio"),
    *("ceiling", "saved", "ceiling_share", "ceiling_share_of_blocks"),
)


@dataclass(frozen=True)
class Bound:
    """A row in one condition.

    Attributes:
        entry: The row.
        runs: What is timed, batch by batch.
        stems: Its subsampling alone, batch by batch; empty = not timed apart.
        flops: Of all batches.
        skipped: In all batches.
    """

    entry: Entry
    runs: list[Run]
    stems: list[Run]
    flops: int
    skipped: Skipped


def measure_scope(
    scope: str,
    entries: Entries,
    accuracy: Mapping[str, Accuracy],
    status: Mapping[str, str],
    conditions: Sequence[Condition],
    *,
    threads: Sequence[int],
    repeats: int,
    log: Log,
) -> list[dict[str, Any]]:
    """Time all rows of a scope, interleaved, in every condition and with every thread count.

    Returns:
        A record of each row, condition and thread count, with the same keys in all of them;
        None where there is no value. A time is that of one batch.
    """
    records = []
    for condition in conditions:
        where = f"{scope}, {condition.audio_seconds:g} s, batch {condition.batch_size}"
        log(f"{where}: FLOPs and skipped frames of {len(entries)} rows")
        bound: dict[str, Bound] = {}
        failures: dict[str, str] = {}
        for name, entry in entries.items():
            if isinstance(entry, Entry):
                try:
                    bound[name] = _bind(entry, condition)
                except Exception as e:  # whatever it is, it must not cost the other rows
                    failures[name] = f"failed: {reason(e)}"
        for n in threads:
            log(f"{where}: timing {len(bound)} rows, {n} thread{'s' if n > 1 else ''}")
            with num_threads(n):
                timings = _time(bound, repeats) if bound else {}
            for name in entries:
                failure = status[name] if status[name] != "ok" else failures.get(name, "ok")
                records.append(
                    {
                        "name": name,
                        "scope": scope,
                        **condition.describe(),
                        "threads": n,
                        **_measured(name, bound, timings, len(condition.groups)),
                        "wer": accuracy[name].wer,
                        "cer": accuracy[name].cer,
                        "status": failure,
                    }
                )
    return records


def _bind(entry: Entry, condition: Condition) -> Bound:
    """Try a row and count what it does.

    Raises:
        ValueError: If it cannot take such batches.
    """
    entry.prepare()
    runs = [entry.bind(group) for group in condition.groups]
    stems = [entry.stem(group) for group in condition.groups] if entry.stem else []
    longest = max(range(len(runs)), key=lambda i: max(s.seconds for s in condition.groups[i]))
    runs[longest]()  # what is computed once is in no count
    flops = sum(count_flops(run) for run in runs)
    skipped = sum((entry.skipped(run) for run in runs), Skipped())
    return Bound(entry, runs, stems, flops, skipped)


def _time(bound: Mapping[str, Bound], repeats: int) -> dict[str, Timing]:
    inputs = []
    for i in range(len(next(iter(bound.values())).runs)):
        cases = {}
        for name, row in bound.items():
            cases[name] = Case(row.runs[i], row.entry.prepare)
            if row.stems:
                cases[_stem(name)] = Case(row.stems[i], row.entry.prepare)
        inputs.append(cases)
    return time_interleaved(inputs, repeats)


def _stem(name: str) -> str:
    return f"subsampling of {name}"


def _measured(
    name: str, bound: Mapping[str, Bound], timings: Mapping[str, Timing], batches: int
) -> dict[str, Any]:
    record: dict[str, Any] = dict.fromkeys(MEASURED)
    if name not in bound:
        return record
    row, timing = bound[name], timings[name].scaled(1.0 / batches)
    record |= {
        "settings": row.entry.settings,
        "full_depth": row.entry.full_depth or None,
        "median_s": timing.median,
        "min_s": timing.min,
        "max_s": timing.max,
        "raw_s": list(timing.seconds),
        "flops": row.flops / batches,
        "skip_ratio": row.skipped.ratio,
        "ceiling": row.skipped.ceiling,
    }
    full = row.entry.full_depth
    if full not in timings:
        return record
    saved = 1.0 - timings[name].median / timings[full].median
    record |= {"saved": saved, "ceiling_share": realised_share(saved, row.skipped.ceiling)}
    if _stem(full) in timings:
        blocks = 1.0 - timings[_stem(full)].median / timings[full].median
        record["ceiling_share_of_blocks"] = realised_share(saved, row.skipped.ceiling, blocks)
    return record


def realised_share(saved: float, ceiling: float, blocks_share: float = 1.0) -> float | None:
    """Return the share of the ceiling that the measured time realises.

    Args:
        saved: 1 - t_on / t_off, of the whole encoder's time.
        ceiling: s * (L - K) / L, the share of the blocks' work that was skipped.
        blocks_share: Share of t_off that the blocks take. 1.0 relates the ceiling to the
            whole encoder, whose subsampling cannot be skipped, so 1.0 cannot be reached by
            linear savings; the measured share gives how well the blocks themselves save.

    Returns:
        saved / (ceiling * blocks_share); None where nothing is skipped. More than 1 is
        possible on long inputs, where attention saves quadratically.
    """
    return saved / (ceiling * blocks_share) if ceiling > 0.0 and blocks_share > 0.0 else None
