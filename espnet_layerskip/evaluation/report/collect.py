"""Everything that a report shows, measured: the part that takes time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from espnet_layerskip.evaluation.cache import DecodingCache
from espnet_layerskip.evaluation.compare import Comparison
from espnet_layerskip.evaluation.environment import environment_record, finish_record
from espnet_layerskip.evaluation.inputs import Speech
from espnet_layerskip.evaluation.report.changes import WORSE, find_changes
from espnet_layerskip.evaluation.report.experiment_data import check_experiment, find_data
from espnet_layerskip.evaluation.report.sweep import Point, failures, points_of, sweep_rows
from espnet_layerskip.evaluation.report.traces import Trace, log_mel, trace_test_set
from espnet_layerskip.evaluation.report.training_history import History, load_history
from espnet_layerskip.evaluation.timing import MIN_REPEATS

NUM_TIMED = 12  # utterances of a timed pass: it has some 20 rows and 6 rounds


@dataclass(frozen=True)
class Example:
    """An utterance to be looked at.

    Attributes:
        trace: What happened in it.
        speech: Its samples.
        feats: Its features (T, F), before normalisation.
        why: Why it was chosen, a sentence.
    """

    trace: Trace
    speech: Speech
    feats: np.ndarray
    why: str


@dataclass(frozen=True)
class Material:
    """What the figures and the page are made from.

    Attributes:
        exp: The experiment, as it was named.
        checkpoint: File name of its weights.
        sha256: Of that file.
        chosen: Where its skipping settings come from.
        data_dir: The test set.
        speech: Its utterances by name.
        traces: What the gate did in each.
        examples: Utterances to be looked at.
        points: Rows that were measured.
        failures: Rows that were not, and why.
        history: Of the training.
        environment: Software, machine, load.
        num_words: Reference words.
        num_timed: Utterances of a timed pass.
        num_threads: PyTorch threads while timing.
    """

    exp: str
    checkpoint: str
    sha256: str
    chosen: str
    data_dir: str
    speech: dict[str, Speech]
    traces: list[Trace]
    examples: list[Example]
    points: list[Point]
    failures: list[str]
    history: History
    environment: dict[str, Any]
    num_words: int
    num_timed: int
    num_threads: int


def collect(
    exp: Path,
    others: Sequence[str],
    cache_dir: Path,
    data_dir: Path | None = None,
    model_file: str | None = None,
    utt_ids: Sequence[str] = (),
    num_threads: int = 1,
    log: Callable[[str], object] = print,
) -> Material:
    """Decode, trace and time.

    Args:
        exp: Experiment with a gate.
        others: ``[LABEL=]EXPDIR[,EXPDIR...]`` to compare with.
        cache_dir: Where decodings are kept.
        data_dir: Kaldi data folder; None = the recipe's test set.
        model_file: Checkpoint name of ``exp`` and the others.
        utt_ids: Utterances to show; empty = a few informative ones.
        num_threads: PyTorch threads while timing.
        log: Is told what is going on.

    Raises:
        ValueError: For an experiment, data or utterance that cannot be used.
    """
    environment = environment_record()
    config = check_experiment(exp, model_file)
    data_dir = data_dir or find_data(exp, config)
    comparison = Comparison(data_dir, DecodingCache(cache_dir), model_file, log)
    experiment, data = comparison.load(str(exp))
    unknown = sorted(set(utt_ids) - {s.utt_id for s in data.speech})
    if unknown:
        some = ", ".join(s.utt_id for s in data.speech[:3])
        raise ValueError(f"--utt-id {unknown[0]} is not in {data_dir} (it has {some} ...)")
    stored, gates = experiment.stored, experiment.encoder.gate_layer_idx
    rows = sweep_rows(str(exp), stored, gates, others)
    log(f"tracing {len(data.speech)} utterances")
    traces = trace_test_set(experiment, data)
    speech = {s.utt_id: s for s in data.speech}
    chosen = choose(traces, utt_ids)
    examples = [Example(t, speech[t.utt_id], log_mel(experiment, speech[t.utt_id]), why)
                for t, why in chosen]  # fmt: skip
    results = comparison.measure(rows, MIN_REPEATS, num_threads, NUM_TIMED)
    return Material(
        exp=str(exp),
        checkpoint=experiment.checkpoint,
        sha256=experiment.sha256,
        chosen=experiment.chosen,
        data_dir=str(data_dir),
        speech=speech,
        traces=traces,
        examples=examples,
        points=points_of(results, str(exp), data.seconds),
        failures=failures(results),
        history=load_history(exp, config.get("max_epoch")),
        environment=finish_record(environment),
        num_words=sum(len(text.split()) for text in data.text.values()),
        num_timed=min(NUM_TIMED, len(data.speech)),
        num_threads=num_threads,
    )


def choose(traces: Sequence[Trace], utt_ids: Sequence[str]) -> list[tuple[Trace, str]]:
    """Return utterances to look at, each with the reason.

    The default: one whose text skipping damaged (or changed), the one with the fewest and the
    one with the most skipped frames, and a typical one.
    """
    by_id = {t.utt_id: t for t in traces}
    if utt_ids:
        return [(by_id[u], "Asked for by --utt-id.") for u in dict.fromkeys(utt_ids)]
    chosen: dict[str, tuple[Trace, str]] = {}
    changes = find_changes(traces)
    if changes:
        damaged = changes[0].effect == WORSE
        why = "Skipping damaged its text." if damaged else "Skipping changed its text."
        chosen[changes[0].trace.utt_id] = changes[0].trace, why
    ordered = sorted(traces, key=lambda t: (t.skip_ratio, t.utt_id))
    for index, why in (
        (len(ordered) // 2, "A typical utterance: the median share of skipped frames."),
        (0, "The fewest frames skipped."),
        (-1, "The most frames skipped."),
    ):
        trace = ordered[index]
        chosen.setdefault(trace.utt_id, (trace, why))
    return list(chosen.values())
