"""Encoder time: one experiment in several forms, interleaved, on real speech.

Scope: the encoder only, from features (after frontend and normalisation, computed once)
to encoder_out, gates and packing included; the head's label posteriors are not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from espnet_layerskip.bench.decode import decode_test_set, score
from espnet_layerskip.bench.experiment import Experiment
from espnet_layerskip.bench.flops import count_flops
from espnet_layerskip.bench.inputs import Speech, TestSet, join_utterances
from espnet_layerskip.bench.report import judge
from espnet_layerskip.bench.scoring import error_rate
from espnet_layerskip.bench.settings import OFF, SkipSettings, can_skip
from espnet_layerskip.bench.systems import Batch, Skipped, System, stock_class
from espnet_layerskip.bench.timing import Case, Timing, num_threads, time_interleaved
from espnet_layerskip.options import PRECISIONS

ON, FULL, STOCK = "ours_skip_on", "ours_skip_off", "stock_class_same_weights"
STEM = "stem"


@dataclass(frozen=True)
class Accuracy:
    """Accuracy of one row on the whole test set, and whether its speed may be shown."""

    wer: float | None
    cer: float | None
    status: str


def build_rows(
    experiment: Experiment, settings: SkipSettings, twins: Mapping[str, Experiment]
) -> dict[str, System | str]:
    """Return the rows of the table by name; a row that cannot be built is its reason.

    Args:
        experiment: With a gate.
        settings: How it skips; None values keep what the experiment says.
        twins: Other experiments at full depth, by label, for instance a trained stock twin.

    Raises:
        ValueError: If the experiment's encoder has no gate.
    """
    encoder = experiment.encoder
    if not can_skip(encoder):
        raise ValueError(
            f"the experiment has a {type(encoder).__name__} without a gate: an encoder with "
            "gate_layer_idx is needed; give a stock experiment as a twin"
        )
    full = System(experiment, OFF)
    rows: dict[str, System | str] = {ON: System(experiment, settings), FULL: full}
    rows[STOCK] = _attempt(partial(stock_class, full))
    for precision in PRECISIONS[1:]:
        for suffix, wanted in (("skip_on", settings), ("skip_off", OFF)):
            rows[f"{precision}_{suffix}"] = _attempt(
                partial(System, experiment, replace(wanted, precision=precision))
            )
    for layer in encoder.gate_layer_idx:
        exit_settings = SkipSettings(threshold=1.0, exit_layer=layer)
        rows[f"exit_at_{layer}"] = System(experiment, exit_settings)
    for label, twin in twins.items():
        rows[f"twin_{label}"] = System(twin, OFF)
    return rows


def measure_accuracy(
    rows: Mapping[str, System | str], data: TestSet, max_wer_increase: float
) -> dict[str, Accuracy]:
    """Decode the whole test set with every row; greedy, batch 1.

    A row fails if its transcripts are missing or empty, or if its WER is more than
    ``max_wer_increase`` points above `FULL`. Twins are other weights: they are not judged.
    """
    found: dict[str, Accuracy] = {}
    reference = None
    for name in sorted(rows, key=lambda n: n != FULL):
        system = rows[name]
        try:
            if isinstance(system, str):
                raise ValueError(system)
            scores = score(system, data, decode_test_set(system, data, with_flops=False))
            wer, cer = error_rate(scores.total("wer")), error_rate(scores.total("cer"))
        except (ValueError, RuntimeError) as e:
            found[name] = Accuracy(None, None, f"failed: {e}")
            continue
        reference = wer if name == FULL else reference
        judged = None if name.startswith("twin_") else reference
        found[name] = Accuracy(wer, cer, judge(wer, judged, max_wer_increase))
    return {name: found[name] for name in rows}


def measure_encoders(
    rows: Mapping[str, System | str],
    accuracy: Mapping[str, Accuracy],
    data: TestSet,
    *,
    seconds: Sequence[float],
    batch_sizes: Sequence[int],
    threads: Sequence[int],
    repeats: int,
    num_inputs: int,
    log: Callable[[str], object] = print,
) -> list[dict[str, Any]]:
    """Time all rows on every input length, batch size and number of threads.

    The same ``num_inputs`` different inputs are used for every batch size; a time is that
    of one batch (the pass over all batches divided by their number).

    Returns:
        A row for each system and condition, see `_record`.

    Raises:
        ValueError: If a batch size does not divide ``num_inputs``, or the data is too short.
    """
    for size in batch_sizes:
        if size < 1 or num_inputs % size:
            raise ValueError(
                f"batch size {size} does not divide the {num_inputs} inputs: choose num_inputs as "
                "a multiple of all batch sizes"
            )
    runnable = {n: s for n, s in rows.items() if isinstance(s, System)}
    records = []
    for wanted in seconds:
        inputs = join_utterances(data.speech, data.utt2spk, wanted, num_inputs)
        for size in batch_sizes:
            groups = [inputs[i : i + size] for i in range(0, num_inputs, size)]
            batches = {n: [s.batch(g) for g in groups] for n, s in runnable.items()}
            flops = {n: _flops(s, batches[n]) for n, s in runnable.items()}
            skipped = {
                n: sum((s.skipped(b) for b in batches[n]), Skipped()) for n, s in runnable.items()
            }
            for n_threads in threads:
                log(f"{wanted:g} s, batch {size}, {n_threads} threads: {len(runnable)} rows")
                with num_threads(n_threads):
                    times = _time(runnable, batches, repeats)
                for name in rows:
                    condition = {
                        "name": name,
                        "seconds": wanted,
                        "measured_seconds": _mean_seconds(inputs),
                        "batch_size": size,
                        "num_threads": n_threads,
                        "num_inputs": num_inputs,
                    }
                    if name in runnable:
                        condition |= _record(name, times, flops[name], skipped[name], len(groups))
                    acc = accuracy[name]
                    records.append(
                        condition | {"wer": acc.wer, "cer": acc.cer, "status": acc.status}
                    )
    return records


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


def _record(
    name: str, times: Mapping[str, Timing], flops: int, skipped: Skipped, num_batches: int
) -> dict[str, Any]:
    off = times[FULL].median
    saved = 1.0 - times[name].median / off
    blocks_share = 1.0 - times[STEM].median / off
    own_weights = not name.startswith("twin_")
    return {
        **times[name].scaled(1.0 / num_batches).as_ms(),
        "flops": flops / num_batches,
        "skip_ratio": skipped.ratio,
        "ceiling": skipped.ceiling,
        "saved": saved,
        "blocks_share": blocks_share,
        "realised_share": realised_share(saved, skipped.ceiling) if own_weights else None,
        "realised_share_of_blocks": realised_share(saved, skipped.ceiling, blocks_share)
        if own_weights
        else None,
    }


def _time(
    systems: Mapping[str, System], batches: Mapping[str, Sequence[Batch]], repeats: int
) -> dict[str, Timing]:
    """Time a pass over all batches for each system, and for the subsampling alone."""
    inputs = []
    for i in range(len(batches[FULL])):
        cases = {
            name: Case(partial(system.encode, batches[name][i]), system.prepare)
            for name, system in systems.items()
        }
        cases[STEM] = Case(partial(systems[FULL].stem, batches[FULL][i]))
        inputs.append(cases)
    return time_interleaved(inputs, repeats)


def _flops(system: System, batches: Sequence[Batch]) -> int:
    system.prepare()
    system.encode(max(batches, key=lambda batch: batch.feats.size(1)))  # fills what is cached
    return sum(count_flops(partial(system.encode, batch)) for batch in batches)


def _mean_seconds(inputs: Sequence[Speech]) -> float:
    return sum(s.seconds for s in inputs) / len(inputs)


def _attempt(build: Callable[[], System]) -> System | str:
    try:
        return build()
    except (ValueError, RuntimeError, AttributeError) as e:
        return f"cannot be built: {e}"
