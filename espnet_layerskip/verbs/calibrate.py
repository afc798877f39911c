"""The verb ``calibrate``: sweep, choose, tell, and store with the model."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import logging
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from espnet_layerskip.inference.calibration import Calibration, calibration_file, read_calibration
from espnet_layerskip.inference.pretrained import find_model
from espnet_layerskip.method.settings import OFF, parse_blank_threshold, parse_spike_extension
from espnet_layerskip.training.checkpoint import file_digest

if TYPE_CHECKING:
    from espnet_layerskip.evaluation.choose import Trial
    from espnet_layerskip.evaluation.experiment import Experiment
    from espnet_layerskip.evaluation.inputs import TestSet
    from espnet_layerskip.evaluation.settings import SkipSettings

NOTHING_FITS = 3  # exit status; 1 is what Python itself exits with when something breaks


def run(args: argparse.Namespace) -> int:
    """Calibrate as the arguments of ``cli.add_calibrate`` say.

    Returns:
        Exit status: 0, or 3 if no setting keeps the budget, so that "off" was stored.

    Raises:
        ValueError: If the call, the model or the data cannot be used.
    """
    if not 0.0 < args.max_wer_increase < math.inf:
        raise ValueError(
            f"--max-wer-increase must be above 0 (percent), but got {args.max_wer_increase:g}: no "
            "development set shows that there is no increase at all"
        )
    if args.num_threads is not None and args.num_threads < 1:
        raise ValueError(f"--num-threads must be at least 1, but got {args.num_threads}")
    exp, data = Path(args.exp), Path(args.data)
    if exp.is_file():
        raise ValueError(f"{exp}: calibrate the experiment directory, then pack it again")
    if args.if_needed and is_current(args, exp, data):
        print(f"{exp}: calibrated already for this budget and development set")
        return 0
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    with contextlib.redirect_stdout(sys.stderr):  # ESPnet and its imports print
        found, path = calibrate(args, exp, data)
    from espnet_layerskip.evaluation.calibration_page import calibration_page

    print(calibration_page(found))
    for warning in found.warnings:
        print(f"WARNING: {warning}", file=sys.stderr)
    print(f"written: {path}")
    return NOTHING_FITS if found.kept_by == "nothing" else 0


def is_current(args: argparse.Namespace, exp: Path, data: Path) -> bool:
    """Return whether what is stored answers the same question about the same files."""
    weights = find_model(exp, args.model_file).model_file
    try:
        stored = read_calibration(calibration_file(weights))
    except (FileNotFoundError, ValueError):
        return False
    asked = (args.metric, args.max_wer_increase, tables_digest(data), file_digest(weights))
    have = (stored.metric, stored.max_increase, stored.data.get("sha256"), stored.sha256)
    return asked == have and not (stored.kept_by == "nothing" and args.allow_point_estimate)


def tables_digest(data: Path) -> str:
    """Return the SHA-256 of a data directory's ``wav.scp`` and ``text``.

    Raises:
        ValueError: If one is missing.
    """
    total = hashlib.sha256()
    for name in ("wav.scp", "text"):
        if not (data / name).is_file():
            raise ValueError(f"{data}: no such data directory, or no {name} in it")
        total.update((data / name).read_bytes())
    return total.hexdigest()


def calibrate(args: argparse.Namespace, exp: Path, data_dir: Path) -> tuple[Calibration, Path]:
    """Sweep, choose and write the file; return it with its path."""
    import torch

    from espnet_layerskip.evaluation import environment
    from espnet_layerskip.evaluation.choose import choose, find_warnings
    from espnet_layerskip.evaluation.experiment import load_experiment
    from espnet_layerskip.evaluation.grid import settings_to_try
    from espnet_layerskip.evaluation.inputs import load_test_set

    grid = read_grid(args.thresholds, args.extensions)
    if args.num_threads is not None:
        torch.set_num_threads(args.num_threads)
    digest = tables_digest(data_dir)
    experiment = load_experiment(exp, args.model_file, blank_threshold=None)
    check_model(exp, experiment)
    record = environment.environment_record()
    data = load_test_set(data_dir, experiment.speech2text.sample_rate)
    settings = settings_to_try(experiment, *grid)
    full_depth, *tried = try_all(experiment, data, settings, args.metric, args.max_wer_increase)
    chosen, kept_by = choose(tried, full_depth, args.allow_point_estimate)
    setting = chosen.settings
    assert setting.threshold is not None
    assert setting.extension is not None
    assert setting.context is not None
    found = Calibration(
        blank_threshold=setting.threshold,
        spike_extension=setting.extension,
        skip_context=setting.context,
        gate_layer_idx=tuple(setting.gates or experiment.encoder.gate_layer_idx),
        metric=args.metric,
        max_increase=args.max_wer_increase,
        kept_by=kept_by,
        warnings=find_warnings(
            tried, full_depth, chosen, kept_by, args.max_wer_increase, len(data.speech)
        ),
        checkpoint=experiment.checkpoint,
        sha256=experiment.sha256,
        data={"name": data_dir.resolve().name, "utterances": len(data.speech), "sha256": digest},
        full_depth=full_depth.to_json(),
        chosen=chosen.to_json(),
        sweep=[trial.to_json() for trial in tried],
        environment=environment.finish_record(record),
        command=environment.command_line("espnet_layerskip.cli", args.argv),
    )
    path = calibration_file(experiment.speech2text.model_files.model_file)
    found.save(path)
    return found, path


def check_model(exp: Path, experiment: Experiment) -> None:
    """Raise ValueError if there is nothing to calibrate."""
    if not getattr(experiment.encoder, "gate_layer_idx", None):
        raise ValueError(
            f"{exp}: its encoder, {type(experiment.encoder).__name__}, has no gate, so that there "
            "is nothing to calibrate"
        )
    if experiment.speech2text.asr_model.postencoder is not None:
        raise ValueError(f"{exp}: a model with a postencoder cannot be calibrated")


def read_grid(
    thresholds: Sequence[str] | None, extensions: Sequence[str] | None
) -> tuple[list[float] | None, list[tuple[int, int]] | None]:
    """Return the thresholds and extensions to try; None = as usual.

    Raises:
        ValueError: If one cannot be read or turns the gate off.
    """
    numbers = [parse_blank_threshold(text) for text in thresholds or ()]
    if wrong := [t for t, n in zip(thresholds or (), numbers, strict=True) if n in (None, OFF)]:
        raise ValueError(f"--thresholds {wrong[0]}: numbers above 0 and below 1 are needed")
    pairs = [parse_spike_extension(text) for text in extensions or ()]
    return [n for n in numbers if n is not None] or None, [
        p for p in pairs if p is not None
    ] or None


def try_all(
    experiment: Experiment,
    data: TestSet,
    settings: Sequence[SkipSettings],
    metric: str,
    max_increase: float,
) -> list[Trial]:
    """Return what comes of each setting, full depth first."""
    from espnet_layerskip.evaluation.choose import make_trial
    from espnet_layerskip.evaluation.one_pass import decode_with_each

    progress = Progress(len(data.speech), len(settings))
    decoded = decode_with_each(experiment, data, settings, progress)
    errors, num_ref = count_all([d.hyps for d in decoded.values()], data.text, metric)
    return [
        make_trial(
            one,
            wrong,
            errors[0],
            num_ref,
            max_increase,
            result.skipped.ratio,
            result.encoder_flops,
        )
        for (one, result), wrong in zip(decoded.items(), errors, strict=True)
    ]


def count_all(
    hyps: Sequence[dict[str, str]], refs: dict[str, str], metric: str
) -> tuple[list[list[int]], list[int]]:
    """Return the errors of each set of transcripts by utterance, and the reference tokens.

    Raises:
        ValueError: If the first set, full depth, is empty altogether.
    """
    from espnet_layerskip.evaluation.scoring import characters, check_hypotheses, words
    from espnet_layerskip.recipe.score_table import count_errors

    split = words if metric == "wer" else characters
    check_hypotheses(refs, hyps[0])
    known: dict[tuple[str, str], int] = {}

    def errors(utt: str, hyp: str) -> int:
        if (utt, hyp) not in known:
            known[utt, hyp] = count_errors(split(refs[utt]), split(hyp)).errors
        return known[utt, hyp]

    counts = [[errors(utt, one[utt]) for utt in refs] for one in hyps]
    return counts, [len(split(ref)) for ref in refs.values()]


class Progress:
    """Tells on stderr, about every five seconds, how far the sweep is."""

    def __init__(self, total: int, settings: int):
        self.total = total
        self.started = self.told = time.monotonic()
        print(f"decoding {total} utterances with {settings} settings", file=sys.stderr)

    def __call__(self, done: int) -> None:
        """Take the number of utterances done."""
        now = time.monotonic()
        if now - self.told >= 5.0 or done == self.total:
            self.told = now
            elapsed = now - self.started
            left = elapsed / done * (self.total - done)
            print(
                f"{done} of {self.total} utterances, {elapsed:.0f} s, {left:.0f} s to go",
                file=sys.stderr,
                flush=True,
            )
