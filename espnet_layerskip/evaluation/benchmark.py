"""A benchmark: one model in all its forms, and its rivals, in three scopes and many conditions."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from espnet_layerskip.evaluation.accuracy import judged, measure_accuracy
from espnet_layerskip.evaluation.conditions import Condition, make_conditions
from espnet_layerskip.evaluation.contenders import (
    GREEDY_OFF,
    GREEDY_ON,
    Contenders,
    make_forms,
    make_onnx,
    make_searches,
    make_stock_searches,
    rivals,
)
from espnet_layerskip.evaluation.environment import environment_record, finish_record, relative
from espnet_layerskip.evaluation.experiment import Experiment, load_experiment
from espnet_layerskip.evaluation.inputs import load_tables
from espnet_layerskip.evaluation.measure import Bind, binders, measure_scope
from espnet_layerskip.evaluation.parts import profile
from espnet_layerskip.evaluation.progress import Log
from espnet_layerskip.evaluation.speedups import HEADLINE, speedups
from espnet_layerskip.evaluation.systems import System
from espnet_layerskip.evaluation.tables import threads as in_words
from espnet_layerskip.evaluation.timing import num_threads
from espnet_layerskip.method.settings import SkipSettings

WHOLE = {"segment_size": "off"}  # a long input is one piece of work for all
# What a new process imports before it can decode, ours and ESPnet's.
STARTS = {"ours": "espnet_layerskip.inference.speech2text", "stock": "espnet2.bin.asr_inference"}
BEFORE_AND_AFTER = ("stock_beam10", GREEDY_OFF, GREEDY_ON)


@dataclass(frozen=True)
class Options:
    """What to measure, see the verb's options; ``twins`` are by label.

    ``skip`` leaves open what is to be as the model says; ``ngram`` and ``lm`` are those of
    `contenders.make_searches`; ``num_inputs`` None is as `make_conditions` says.
    """

    model: str
    model_file: str | None
    wav_scp: Path
    text: Path
    scopes: Sequence[str]
    twins: Mapping[str, str]
    ngram: Mapping[str, Any]
    lm: Mapping[str, Any]
    skip: SkipSettings
    threads: Sequence[int]
    batch_sizes: Sequence[int]
    seconds: Sequence[float]
    num_inputs: int | None
    repeats: int
    max_wer_increase: float


def benchmark(options: Options, command: str, log: Log) -> dict[str, Any]:
    """Measure.

    Args:
        options: What to measure.
        command: How it can be done again.
        log: Takes lines about the progress.

    Returns:
        "environment" (with command, model, data and settings), "rows" (see
        `measure.measure_scope`), "speedups" (see `speedups.speedups`) and "profile" (a list;
        empty without the scope e2e).

    Raises:
        ValueError: If the model, a twin or the data cannot be used.
    """
    environment = environment_record()
    log("loading")
    loading = time.monotonic()
    experiment = load_experiment(options.model, options.model_file, **WHOLE)
    twins = load_twins(experiment, options)
    loading = time.monotonic() - loading
    data, speakers = load_tables(options.wav_scp, options.text, experiment.speech2text.sample_rate)
    conditions = make_conditions(data, options.seconds, options.batch_sizes, options.num_inputs)
    rows: list[dict[str, Any]] = []
    profiles: list[dict[str, Any]] = []
    starts: dict[str, float | None] = {}
    with tempfile.TemporaryDirectory(prefix="espnet_layerskip_") as directory:
        inputs = [*data.speech, *(one for c in conditions for group in c.groups for one in group)]
        longest = max(speech.seconds for speech in inputs)
        onnx = partial(make_onnx, folder=Path(directory, "asr.onnx"), longest=longest)
        scopes = make_rows(experiment, twins, options, onnx)
        bind = binders(Path(directory))
        every = {name: row for of_scope in scopes.values() for name, row in of_scope.items()}
        with num_threads(min(options.threads)):  # more would wait for a busy machine
            accuracy = measure_accuracy(every, data, log)
        accuracy = judged(every, accuracy, options.max_wer_increase)
        for scope, of_scope in scopes.items():
            rows += measure_scope(
                scope,
                bind[scope],
                of_scope,
                accuracy,
                conditions,
                threads=options.threads,
                repeats=options.repeats,
                log=log,
            )
        if "e2e" in scopes:
            gate = experiment.encoder.gate_layer_idx[0]
            profiles = take_profiles(scopes["e2e"], bind["e2e"], gate, conditions, options, log)
            starts = {who: start_seconds(module) for who, module in STARTS.items()}
    log("done")
    return {
        "environment": {
            **finish_record(environment),
            "command": command,
            "model": {
                "exp": relative(options.model),
                "checkpoint": experiment.checkpoint,
                "sha256": experiment.sha256,
                "skipping": System(experiment, options.skip).how,
            },
            "data": {
                "wav_scp": relative(options.wav_scp),
                "text": relative(options.text),
                **data.describe(),
                "speakers": speakers,
            },
            "settings": {
                "repeats": options.repeats,
                "max_wer_increase_percent": options.max_wer_increase,
            },
            "start_s": starts,
            "load_s": loading,
        },
        "rows": rows,
        "speedups": speedups(rows, options.max_wer_increase),
        "profile": profiles,
    }


def load_twins(experiment: Experiment, options: Options) -> dict[str, Experiment]:
    """Return the twins by label.

    Raises:
        ValueError: If one of them cannot be used.
    """
    found = {}
    for label, exp in options.twins.items():
        found[label] = twin = load_experiment(exp, options.model_file, **WHOLE)
        rates = twin.speech2text.sample_rate, experiment.speech2text.sample_rate
        if rates[0] != rates[1]:
            raise ValueError(
                f"twin {label} takes {rates[0]} Hz, but the model takes {rates[1]} Hz: compare "
                "models of one sampling rate"
            )
    return found


def make_rows(
    experiment: Experiment,
    twins: Mapping[str, Experiment],
    options: Options,
    onnx: Callable[[Experiment, SkipSettings], Contenders],
) -> dict[str, Contenders]:
    """Return the rows of each scope; onnxruntime's begin with samples, so the encoder has none.

    Args:
        experiment: With a gate.
        twins: By label.
        options: What to measure.
        onnx: Makes the rows of the exported model.

    Raises:
        ValueError: If the model has no gate.
    """
    forms = make_forms(experiment, options.skip, twins)
    found = {"encoder": forms}
    if list(options.scopes) != ["encoder"]:
        forms = forms | onnx(experiment, options.skip)
        found["model"] = rivals(forms)
    if "e2e" in options.scopes:
        load = partial(load_experiment, options.model, options.model_file, **WHOLE)
        searches = make_searches(forms, load, options.skip, options.ngram, options.lm)
        stock = make_stock_searches(experiment, twins, options.ngram, options.lm)
        found["e2e"] = searches | stock
    return {scope: found[scope] for scope in options.scopes}


def take_profiles(
    rows: Contenders,
    bind: Bind,
    gate: int,
    conditions: Sequence[Condition],
    options: Options,
    log: Log,
) -> list[dict[str, Any]]:
    """Return where the time goes in ESPnet and in ours, in one condition with batch 1."""
    of_ones = [c for c in conditions if c.batch_size == 1]
    if not of_ones:
        return []
    condition = next((c for c in of_ones if c.audio_seconds == HEADLINE[0]), of_ones[0])
    threads = HEADLINE[2] if HEADLINE[2] in options.threads else options.threads[-1]
    found = {name: rows[name].system for name in BEFORE_AND_AFTER}
    systems = {name: system for name, system in found.items() if not isinstance(system, str)}
    runs = {name: [bind(s, group) for group in condition.groups] for name, s in systems.items()}
    log(f"profile: {condition.audio_seconds:g} s, {in_words(threads)}")
    with num_threads(threads):
        profiles = profile(systems, gate, runs, options.repeats)
    about = {**condition.describe(), "threads": threads}
    return [{"name": name, **about, **taken} for name, taken in profiles.items()]


def start_seconds(module: str) -> float | None:
    """Return how long a process takes to start and import a module, once; None if it fails."""
    began = time.monotonic()
    paths = os.pathsep.join(path for path in sys.path if path)
    done = subprocess.run(
        [sys.executable, "-c", f"import {module}"],
        capture_output=True,
        check=False,
        env={**os.environ, "PYTHONPATH": paths},
    )
    return time.monotonic() - began if done.returncode == 0 else None
