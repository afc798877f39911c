"""Everything that a report shows, measured: the part that takes time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from espnet_layerskip.evaluation.cache import DecodingCache
from espnet_layerskip.evaluation.compare import Comparison
from espnet_layerskip.evaluation.environment import environment_record, finish_record
from espnet_layerskip.evaluation.experiment import Experiment, read_config
from espnet_layerskip.evaluation.flops import counted
from espnet_layerskip.evaluation.inputs import Speech, located, spread_over_durations
from espnet_layerskip.evaluation.report.changes import UNCHANGED, WORSE, compare_texts
from espnet_layerskip.evaluation.report.comparison import check_comparison, with_times
from espnet_layerskip.evaluation.report.sweep import (
    Point,
    measured_settings,
    points_of,
    sweep_rows,
)
from espnet_layerskip.evaluation.report.traces import (
    Trace,
    Variant,
    trace_test_set,
    try_settings,
)
from espnet_layerskip.evaluation.report.training_history import History, load_history
from espnet_layerskip.evaluation.scoring import MAX_WER_POINTS
from espnet_layerskip.evaluation.systems import System
from espnet_layerskip.evaluation.timing import MIN_REPEATS
from espnet_layerskip.inference.pretrained import MODEL_FILES
from espnet_layerskip.method.settings import OFF

TEST_SET = "test"  # the recipe's dump/raw/test
NUM_COUNTED = 3  # utterances of which the subsampling's share is counted
NUM_TIMED = 12  # utterances of a timed pass: it has some 20 rows and 6 rounds


@dataclass(frozen=True)
class Material:
    """What the figures and the page are made from.

    Attributes:
        exp: The experiment, as it was named.
        experiment: Its model, its checkpoint, and where its settings come from.
        data_dir: The test set.
        speech: Its utterances by name.
        num_words: Its reference words.
        traces: What the gate did in each utterance.
        examples: Utterances to be looked at, each with the reason, a sentence.
        points: Rows that were measured.
        failures: Rows that were not, and why.
        history: Of the training.
        environment: Software, machine, load.
        num_timed: Utterances of a timed pass.
        num_threads: PyTorch threads while timing.
        max_wer_points: Points of WER above full depth from which a row has failed.
        stem_share: Share of the subsampling in the encoder's FLOPs at full depth.
        variants: By name of an example, what each of `measured_settings` makes of it.
    """

    exp: str
    experiment: Experiment
    data_dir: str
    speech: dict[str, Speech]
    num_words: int
    traces: list[Trace]
    examples: list[tuple[Trace, str]]
    points: list[Point]
    failures: list[str]
    history: History
    environment: dict[str, Any]
    num_timed: int
    num_threads: int
    max_wer_points: float = MAX_WER_POINTS
    stem_share: float = 0.0
    variants: Mapping[str, Sequence[Variant]] = field(default_factory=dict)


def collect(
    exp: str | Path,
    others: Sequence[str],
    cache_dir: Path,
    data_dir: Path | None = None,
    model_file: str | None = None,
    utt_ids: Sequence[str] = (),
    num_threads: int = 1,
    compared: Mapping[str, Any] | None = None,
) -> Material:
    """Decode, trace and time.

    Args:
        exp: Experiment with a gate: a folder, a packed zip or a tag of espnet_model_zoo.
        others: ``[LABEL=]EXPDIR[,EXPDIR...]`` to compare with.
        cache_dir: Where decodings are kept.
        data_dir: Kaldi data folder; None = the recipe's test set.
        model_file: Checkpoint name of ``exp`` and the others.
        utt_ids: Utterances to show; empty = a few informative ones.
        num_threads: PyTorch threads while timing.
        compared: As `read_comparison` returns it: its times by length are taken over, and what it
            allows in WER.

    Raises:
        ValueError: For an experiment, data or utterance that cannot be used.
    """
    environment = environment_record()
    config = check_experiment(exp, model_file)
    data_dir = data_dir or find_data(Path(exp), config)
    comparison = Comparison(data_dir, DecodingCache(cache_dir), model_file)
    experiment, data = comparison.load(str(exp)), comparison.data
    speech = {s.utt_id: s for s in data.speech}
    num_words = sum(len(text.split()) for text in data.text.values())
    if compared is not None:
        check_comparison(compared, experiment.sha256, len(speech), num_words)
    if unknown := sorted(set(utt_ids) - set(speech)):
        some = ", ".join(list(speech)[:3])
        raise ValueError(f"--utt-id {unknown[0]} is not in {data_dir} (it has {some} ...)")
    rows = sweep_rows(str(exp), experiment.settings, experiment.encoder.gate_layer_idx, others)
    print(f"tracing {len(speech)} utterances")
    traces = trace_test_set(experiment, data)
    traced = {trace.utt_id for trace in traces}
    if short := [utt for utt in utt_ids if utt not in traced]:
        raise ValueError(f"--utt-id {short[0]} is too short for the encoder: nothing can be shown")
    results = comparison.measure(rows, MIN_REPEATS, num_threads, NUM_TIMED)
    allowed = MAX_WER_POINTS if compared is None else compared["settings"]["max_wer_points"]
    points, examples = points_of(results, str(exp), data.seconds, allowed), choose(traces, utt_ids)
    if compared is not None:
        points = with_times(points, compared)
    settings = [point.settings for point in measured_settings(points)]
    return Material(
        exp=str(exp),
        experiment=experiment,
        data_dir=str(data_dir),
        speech=speech,
        num_words=num_words,
        traces=traces,
        examples=examples,
        points=points,
        failures=[f"{r.row.name}: {r.failure}" for r in results if not r.seeds],
        history=load_history(
            Path(exp), config.get("max_epoch"), [Path(one) for row in rows for one in row.exps]
        ),
        environment=finish_record(environment),
        num_timed=min(NUM_TIMED, len(traces)),
        num_threads=num_threads,
        max_wer_points=allowed,
        stem_share=_stem_share(experiment, [s for s in data.speech if s.utt_id in traced]),
        variants={
            trace.utt_id: try_settings(experiment, speech[trace.utt_id], settings)
            for trace, _ in examples
        },
    )


def _stem_share(experiment: Experiment, speech: Sequence[Speech]) -> float:
    """Return the share of the subsampling in the encoder's FLOPs at full depth."""
    full, stem, total = System(experiment, OFF), 0, 0
    for one in spread_over_durations(speech, NUM_COUNTED):
        batch = full.batch([one])
        full.encode(batch)  # what is computed once does not count
        stem += counted(partial(full.subsample, batch))[1]
        total += counted(partial(full.encode, batch))[1]
    return stem / total


def choose(traces: Sequence[Trace], utt_ids: Sequence[str]) -> list[tuple[Trace, str]]:
    """Return utterances to look at, each with the reason.

    The default: one whose text skipping damaged (or changed), the one with the fewest and the
    one with the most skipped frames, and a typical one (see `typical`).
    """
    if utt_ids:
        by_id = {t.utt_id: t for t in traces}
        return [(by_id[u], "Asked for by --utt-id.") for u in dict.fromkeys(utt_ids)]
    ordered = sorted(traces, key=lambda t: (t.skip_ratio, t.utt_id))
    wanted = [
        typical(traces),
        (ordered[0], "The fewest frames skipped."),
        (ordered[-1], "The most frames skipped."),
    ]
    if changes := [c for c in compare_texts(traces) if c.effect != UNCHANGED]:
        damaged = changes[0].effect == WORSE
        why = "Skipping damaged its text." if damaged else "Skipping changed its text."
        wanted.insert(0, (changes[0].trace, why))
    chosen: dict[str, tuple[Trace, str]] = {}
    for trace, why in wanted:
        chosen.setdefault(trace.utt_id, (trace, why))
    return list(chosen.values())


def typical(traces: Sequence[Trace]) -> tuple[Trace, str]:
    """Return the utterance that is nearest to the middle in three ways, and what the middle is.

    They are the duration, the share of skipped frames and the tokens per second. In each the
    utterances are ranked, ties share their rank, and the distance from the middle rank counts.
    """
    measures = [
        [t.seconds for t in traces],
        [t.skip_ratio for t in traces],
        [t.token_rate for t in traces],
    ]

    def away(values: Sequence[float], mine: float) -> int:
        return abs(sum(v < mine for v in values) - sum(v > mine for v in values))

    distances = [
        (sum(away(v, mine) for v, mine in zip(measures, own, strict=True)), t.utt_id, t)
        for t, own in zip(traces, zip(*measures, strict=True), strict=True)
    ]
    _, _, chosen = min(distances, key=lambda found: found[:2])
    seconds, skipped, rate = (median(values) for values in measures)
    return chosen, (
        "A typical utterance: of all, it is nearest to the medians of duration "
        f"({seconds:.1f} s), frames skipped ({100 * skipped:.0f} %) and tokens per second "
        f"({rate:.1f})."
    )


def check_experiment(exp: str | Path, model_file: str | None = None) -> dict[str, Any]:
    """Return the configuration of an experiment that a report can be made of.

    Raises:
        ValueError: If it is no experiment, has no gate or no averaged checkpoint yet; says
            what to do.
    """
    config, exp = read_config(exp, model_file), Path(exp)
    if not (config.get("encoder_conf") or {}).get("gate_layer_idx"):
        raise ValueError(
            f"{exp} has encoder: {config.get('encoder')} without a gate, so there is nothing to "
            "report on: give it as --compare, and an experiment with gate_layer_idx as --exp (a "
            "stock model gets a gate by python -m espnet_layerskip.recipe.add_gate)"
        )
    interrupted = model_file is None and (exp / "checkpoint.pth").is_file()
    if interrupted and not any(any(exp.glob(name)) for name in MODEL_FILES):
        epochs = sorted(p.name for p in exp.glob("*epoch.pth"))
        raise ValueError(
            f"{exp}: the training was interrupted, it has no averaged checkpoint yet. Start stage "
            "11 of the recipe again, it goes on where it stopped; or report on what there is: "
            f"--model-file {epochs[-1] if epochs else 'FILE.pth'}"
        )
    return config


def find_data(exp: Path, config: dict[str, Any]) -> Path:
    """Return the recipe's test set: ``test`` beside the validation data of the training.

    Raises:
        ValueError: If there is none; asks for ``--data``.
    """
    looked = []
    for entry in config.get("valid_data_path_and_name_and_type") or []:
        data_dir = Path(entry[0]).parent.parent / TEST_SET
        table = Path(located(str(data_dir / "wav.scp"), exp.resolve() / "config.yaml"))
        if table.is_file():
            return table.parent
        looked.append(str(data_dir))
    where = f" (looked for {', '.join(sorted(set(looked)))})" if looked else ""
    raise ValueError(
        f"{exp}: its configuration does not lead to a test set{where}: give one by --data DIR, a "
        "folder with wav.scp, text and utt2spk"
    )
