"""The verb ``benchmark``: speed and accuracy of one model in all its forms, and of its rivals."""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from espnet_layerskip.evaluation.accuracy import Accuracy, Log, judge_rows, measure_accuracy
from espnet_layerskip.evaluation.benchmark_figure import draw_benchmark
from espnet_layerskip.evaluation.benchmark_options import Options, read_options
from espnet_layerskip.evaluation.benchmark_report import benchmark_page, summary
from espnet_layerskip.evaluation.conditions import Condition, make_conditions
from espnet_layerskip.evaluation.contenders import Contenders
from espnet_layerskip.evaluation.entries import GREEDY_OFF, GREEDY_ON, Entries, Entry, WaveFiles
from espnet_layerskip.evaluation.environment import environment_record, finish_record, typed
from espnet_layerskip.evaluation.inputs import load_tables
from espnet_layerskip.evaluation.measure import measure_scope
from espnet_layerskip.evaluation.parts import profile
from espnet_layerskip.evaluation.report.canvas import check_matplotlib
from espnet_layerskip.evaluation.speedups import HEADLINE, speedups
from espnet_layerskip.evaluation.timing import num_threads
from espnet_layerskip.files import write_bytes, write_text

# What a new process imports before it can decode, ours and ESPnet's.
STARTS = {"ours": "espnet_layerskip.inference.speech2text", "stock": "espnet2.bin.asr_inference"}
BEFORE_AND_AFTER = ("stock_beam10", GREEDY_OFF, GREEDY_ON)


def run(args: argparse.Namespace) -> int:
    """Benchmark as the arguments of ``cli.add_benchmark`` say.

    Returns:
        Exit status 0.

    Raises:
        ValueError: If the call, the model or the data cannot be used.
    """
    options = read_options(args)
    check_matplotlib()
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    logging.getLogger().setLevel(logging.WARNING)  # ESPnet logs whole models
    command = typed(["espnet-layerskip", *args.argv])
    began = time.monotonic()

    def log(line: str) -> None:
        print(f"[{time.monotonic() - began:4.0f} s] {line}", file=sys.stderr, flush=True)

    with contextlib.redirect_stdout(sys.stderr):  # ESPnet and its imports print
        report = benchmark(options, command, log)
        drawing = draw_benchmark(report, command)
    write_text(options.output, json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    write_text(options.output.with_suffix(".md"), benchmark_page(report))
    write_bytes(options.output.with_suffix(".png"), drawing.png)
    print(summary(report))
    for suffix in (".json", ".md", ".png"):
        print(options.output.with_suffix(suffix))
    return 0


def benchmark(options: Options, command: str, log: Log) -> dict[str, Any]:
    """Measure.

    Args:
        options: What to measure.
        command: How it can be done again.
        log: Is told what is going on.

    Returns:
        "environment" (with command, model, data and settings), "rows" (see
        `measure.measure_scope`), "speedups" (see `speedups.speedups`) and "profile" (a list;
        empty without the scope e2e).
    """
    environment = environment_record()
    log("loading")
    loading = time.monotonic()
    contenders = Contenders.load(
        options.model,
        options.model_file,
        options.skip,
        options.twins,
        options.lm,
        options.neural_lm,
    )
    loading = time.monotonic() - loading
    experiment = contenders.experiment
    data, speakers = load_tables(options.wav_scp, options.text, experiment.speech2text.sample_rate)
    conditions = make_conditions(data, options.seconds, options.batch_sizes, options.num_inputs)
    rows: list[dict[str, Any]] = []
    profiles: list[dict[str, Any]] = []
    starts: dict[str, float | None] = {}
    known: dict[int, Accuracy] = {}
    with tempfile.TemporaryDirectory(prefix="espnet_layerskip_") as directory:
        entries = contenders.entries(options.scopes, WaveFiles(Path(directory)))
        for scope, of_scope in entries.items():
            with num_threads(max(options.threads)):
                accuracy = measure_accuracy(of_scope, data, known, log)
            rows += measure_scope(
                scope,
                of_scope,
                accuracy,
                judge_rows(of_scope, accuracy, options.max_wer_increase),
                conditions,
                threads=options.threads,
                repeats=options.repeats,
                log=log,
            )
        if "e2e" in entries:
            gate = experiment.encoder.gate_layer_idx[0]
            profiles = take_profiles(entries["e2e"], gate, conditions, options, log)
            starts = {who: start_seconds(module) for who, module in STARTS.items()}
    log("done")
    return {
        "environment": {
            **finish_record(environment),
            "command": command,
            "model": {
                "exp": _relative(options.model),
                "checkpoint": experiment.checkpoint,
                "sha256": experiment.sha256,
                "skipping": contenders.settings.resolved(
                    experiment.encoder, experiment.stored
                ).describe(),
            },
            "data": {
                "wav_scp": _relative(options.wav_scp),
                "text": _relative(options.text),
                "utterances": len(data.speech),
                "words": sum(len(text.split()) for text in data.text.values()),
                "seconds": data.seconds,
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


def take_profiles(
    entries: Entries, gate: int, conditions: Sequence[Condition], options: Options, log: Log
) -> list[dict[str, Any]]:
    """Return where the time goes in ESPnet and in ours, in one condition with batch 1."""
    of_ones = [c for c in conditions if c.batch_size == 1]
    if not of_ones:
        return []
    condition = next((c for c in of_ones if c.audio_seconds == HEADLINE[0]), of_ones[0])
    threads = HEADLINE[2] if HEADLINE[2] in options.threads else options.threads[-1]
    found = {name: entries[name] for name in BEFORE_AND_AFTER}
    rows = {name: entry for name, entry in found.items() if isinstance(entry, Entry)}
    runs = {}
    for name, entry in rows.items():
        entry.prepare()
        runs[name] = [entry.bind(group) for group in condition.groups]
    log(f"profile: {condition.audio_seconds:g} s, {threads} threads")
    with num_threads(threads):
        profiles = profile(rows, gate, runs, options.repeats)
    return [
        {"name": name, **condition.describe(), "threads": threads, **taken.to_json()}
        for name, taken in profiles.items()
    ]


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


def _relative(path: Path | str) -> str:
    path = Path(path)
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)
