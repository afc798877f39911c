"""Time of a benchmark's rows: all rows of a scope interleaved, with what they did."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import soundfile
import torch

from espnet_layerskip.evaluation.accuracy import Accuracy
from espnet_layerskip.evaluation.conditions import Condition
from espnet_layerskip.evaluation.contenders import Contenders
from espnet_layerskip.evaluation.flops import counted
from espnet_layerskip.evaluation.inputs import Speech
from espnet_layerskip.evaluation.progress import Log
from espnet_layerskip.evaluation.tables import threads as in_words
from espnet_layerskip.evaluation.timing import num_threads, summary, time_interleaved
from espnet_layerskip.inference.audio import Utterance
from espnet_layerskip.inference.recognize import reason
from espnet_layerskip.inference.skip_count import SkipCount

Run = Callable[[], Any]
Bind = Callable[[Any, Sequence[Speech]], Run]
SCOPES = ("encoder", "model", "e2e")
MEASURED = (
    *("settings", "full_depth", "median_s", "min_s", "max_s", "raw_s", "flops", "skip_ratio"),
    *("ceiling", "saved", "ceiling_share", "ceiling_share_of_blocks"),
)


def wave_files(directory: Path) -> Callable[[Speech], Utterance]:
    """Return a function that gives speech as a file (16 bits a sample), written once."""
    written: dict[str, Utterance] = {}

    def write(speech: Speech) -> Utterance:
        if speech.utt_id not in written:
            path = directory / f"{len(written)}.wav"  # joined names can be too long
            soundfile.write(path, speech.samples, speech.rate, subtype="PCM_16")
            written[speech.utt_id] = Utterance(speech.utt_id, str(path))
        return written[speech.utt_id]

    return write


def binders(directory: Path) -> dict[str, Bind]:
    """Return by scope what gives the function to be timed, of a system and a batch of speech.

    "encoder": features, computed before, to encoder_out. "model": samples in memory to
    log-posteriors. "e2e": wave files in a directory to text.
    """
    files = wave_files(directory)
    return {
        "encoder": lambda system, group: partial(system.encode, system.batch(group)),
        "model": lambda system, group: partial(
            system.posteriors, [torch.from_numpy(speech.samples) for speech in group]
        ),
        "e2e": lambda system, group: partial(system.recognize, [files(s) for s in group]),
    }


@dataclass(frozen=True)
class Bound:
    """A row in one condition.

    Attributes:
        settings: What it is, in one line.
        runs: What is timed, batch by batch.
        stems: Its subsampling alone, batch by batch; empty = not timed apart.
        flops: Of all batches; 0 = not counted (onnxruntime).
        skipped: In all batches.
    """

    settings: str
    runs: list[Run]
    stems: list[Run]
    flops: int
    skipped: SkipCount


def measure_scope(
    scope: str,
    bind: Bind,
    rows: Contenders,
    accuracy: Mapping[str, Accuracy],
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
    with_stem = {row.full_depth for row in rows.values()} if scope == "encoder" else set()
    for condition in conditions:
        where = f"{scope}, {condition.audio_seconds:g} s, batch {condition.batch_size}"
        log(f"{where}: FLOPs and skipped frames of {len(rows)} rows")
        bound: dict[str, Bound] = {}
        said = {name: asdict(one) for name, one in accuracy.items()}
        for name, row in rows.items():
            if not isinstance(row.system, str):
                try:
                    with num_threads(min(threads)):
                        bound[name] = _bind(row.system, bind, condition, name in with_stem)
                except Exception as e:  # whatever it is, it must not cost the other rows
                    if said[name]["status"] == "ok":
                        said[name]["status"] = f"failed: {reason(e)}"
        for n in threads:
            log(f"{where}: timing {len(bound)} rows, {in_words(n)}")
            with num_threads(n):
                timings = _time(bound, repeats) if bound else {}
            for name, row in rows.items():
                measured = _measured(name, row.full_depth, bound, timings, len(condition.groups))
                about = {"name": name, "scope": scope, **condition.describe(), "threads": n}
                records.append({**about, **measured, **said[name]})
    return records


def _bind(system: Any, bind: Bind, condition: Condition, with_stem: bool) -> Bound:
    """Try a row and count what it does.

    Raises:
        ValueError: If it cannot take such batches.
    """
    groups = condition.groups
    runs = [bind(system, group) for group in groups]
    longest = max(range(len(runs)), key=lambda i: max(s.seconds for s in groups[i]))
    runs[longest]()  # what is computed once is in no count
    flops = sum(counted(run)[1] for run in runs)
    skipped = sum((system.skips_of(group) for group in groups), SkipCount())
    stems: list[Run] = []
    if with_stem:
        stems = [partial(system.subsample, system.batch(group)) for group in groups]
    return Bound(system.describe(), runs, stems, flops, skipped)


def _time(bound: Mapping[str, Bound], repeats: int) -> dict[str, list[float]]:
    cases = {name: row.runs for name, row in bound.items()}
    cases |= {_stem(name): row.stems for name, row in bound.items() if row.stems}
    inputs = [dict(zip(cases, runs, strict=True)) for runs in zip(*cases.values(), strict=True)]
    return time_interleaved(inputs, repeats)


def _stem(name: str) -> str:
    return f"subsampling of {name}"


def _measured(
    name: str,
    full: str,
    bound: Mapping[str, Bound],
    timings: Mapping[str, Sequence[float]],
    batches: int,
) -> dict[str, Any]:
    record: dict[str, Any] = dict.fromkeys(MEASURED)
    if name not in bound:
        return record
    row = bound[name]
    record |= {
        "settings": row.settings,
        "full_depth": full or None,
        **summary(timings[name], batches),
        "flops": row.flops / batches or None,
        "skip_ratio": row.skipped.ratio,
        "ceiling": row.skipped.ceiling,
    }
    if full in timings:
        whole = median(timings[full])
        saved = 1.0 - median(timings[name]) / whole
        record |= {"saved": saved, "ceiling_share": realised_share(saved, row.skipped.ceiling)}
        if _stem(full) in timings:
            blocks = 1.0 - median(timings[_stem(full)]) / whole
            share = realised_share(saved, row.skipped.ceiling, blocks)
            record["ceiling_share_of_blocks"] = share
    return record


def realised_share(saved: float, ceiling: float, blocks_share: float = 1.0) -> float | None:
    """Return the share of the ceiling that the measured time realises.

    Args:
        saved: 1 - t_on / t_off, of the whole encoder's time.
        ceiling: s * (L - K) / L, the share of the blocks' work that was skipped.
        blocks_share: Share of t_off that the blocks take; 1.0 = do not leave the subsampling
            out, which cannot be skipped.

    Returns:
        saved / (ceiling * blocks_share); None where nothing is skipped. More than 1 is
        possible on long inputs, where attention saves quadratically.
    """
    return saved / (ceiling * blocks_share) if ceiling > 0.0 and blocks_share > 0.0 else None
