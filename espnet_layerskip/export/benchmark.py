"""Speed of an exported model beside its PyTorch form: python -m espnet_layerskip.export.benchmark.

Both run the same weights in one process, in turns; what is printed is a table in Markdown.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from espnet_layerskip.export.model import Exporter, check_exportable
from espnet_layerskip.export.session import onnxruntime_module
from espnet_layerskip.inference.audio import Utterance, read_audio
from espnet_layerskip.inference.posteriors import extract_features, prepare, run_encoder
from espnet_layerskip.method.settings import SkipSettings


def get_parser() -> argparse.ArgumentParser:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--model", required=True, help="experiment directory, packed zip or tag")
    add("--seconds", type=float, nargs="+", default=[3.0, 10.0, 30.0], help="lengths of the input")
    add("--threads", type=int, nargs="+", default=[1, 2], help="CPU threads")
    add("--repeats", type=int, default=21, help="runs of each, in turns")
    add("--settings", nargs="*", default=[], metavar="KEY=VALUE", help="instead of the model's own")
    add("--frontend", action="store_true", help="begin with samples, not with features")
    add("--audio", nargs="+", required=True, help="files that are joined to the input")
    return parser


def session(exporter: Exporter, threads: int, **options: Any) -> Any:
    """Return an onnxruntime session of a graph."""
    runtime = onnxruntime_module()
    settings = runtime.SessionOptions()
    settings.intra_op_num_threads, settings.log_severity_level = threads, 3
    settings.add_session_config_entry("session.set_denormal_as_zero", "1")
    graph = exporter.graph(**options).model({}).SerializeToString()
    return runtime.InferenceSession(graph, settings, providers=["CPUExecutionProvider"])


def timed(runs: dict[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Return the times in ms of functions that are called in turns, after a first call of each."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for i in range(repeats + 1):
        for name, run in runs.items():
            began = time.perf_counter()
            run()
            if i:
                times[name].append(1e3 * (time.perf_counter() - began))
    return times


def variants(model: Any, wave: np.ndarray, frontend: bool, sessions: dict[str, Any]) -> Any:
    """Return what is timed by name: functions from samples or features to log-probabilities."""
    speech = torch.from_numpy(wave)
    feats = extract_features(model, speech)
    if frontend:
        inputs = {"speech": wave[None], "speech_lengths": np.array([len(wave)])}
    else:
        inputs = {"features": feats[None].numpy(), "feature_lengths": np.array([len(feats)])}
    on = model.encoder.settings
    off = replace(on, blank_threshold=1.0)

    def eager(settings: Any) -> object:
        x, lens = prepare(model, [extract_features(model, speech) if frontend else feats])
        return run_encoder(model, x, lens, settings).log_softmax(model.ctc)

    return {
        "PyTorch off": lambda: eager(off),
        "PyTorch on": lambda: eager(on),
        "onnxruntime off": lambda: sessions["off"].run(None, inputs),
        "onnxruntime on": lambda: sessions["on"].run(None, inputs),
    }


@torch.inference_mode()
def run(args: argparse.Namespace) -> None:
    """Print the table."""
    with contextlib.redirect_stdout(sys.stderr):
        from espnet_layerskip.inference.speech2text import load_model

        loaded = load_model(args.model, decoder_type="greedy", blank_threshold="auto")
    model, rate = loaded.asr_model, loaded.sample_rate
    model.encoder.settings = settings = SkipSettings.from_items(args.settings).over(
        model.encoder.settings
    )
    check_exportable(model, settings)
    exporter = Exporter(model, settings, int(max(args.seconds) / loaded.frame_seconds) + 1)
    parts = [
        read_audio(Utterance(path, path), rate, resample=True, mix=True) for path in args.audio
    ]
    audio = np.concatenate(parts)
    audio = np.tile(audio, int(max(args.seconds) * rate) // len(audio) + 1)
    names = ("PyTorch off", "PyTorch on", "onnxruntime off", "onnxruntime on")
    print(f"{settings.describe()}; ms, median (fastest) of {args.repeats}\n")
    gains = "PyTorch off/on | onnxruntime off/on | PyTorch/onnxruntime on"
    print(f"| threads | s | {' | '.join(names)} | {gains} |\n|{'---|' * (len(names) + 5)}")
    for threads in args.threads:
        torch.set_num_threads(threads)
        options: dict[str, Any] = {"from_features": not args.frontend}
        sessions = {
            "off": session(exporter, threads, **options),
            "on": session(exporter, threads, gates=sorted(exporter.gates), **options),
        }
        for seconds in args.seconds:
            wave = audio[: int(seconds * rate)]
            times = timed(variants(model, wave, args.frontend, sessions), args.repeats)
            best = {name: statistics.median(times[name]) for name in names}
            cells = [f"{best[name]:.1f} ({min(times[name]):.1f})" for name in names]
            pairs = [names[0:2], names[2:4], (names[1], names[3])]
            cells += [f"{best[a] / best[b]:.2f}" for a, b in pairs]
            print(f"| {threads} | {seconds:g} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    run(get_parser().parse_args())
