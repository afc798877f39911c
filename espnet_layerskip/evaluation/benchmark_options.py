"""Options of the verb ``benchmark``: read and checked before anything is loaded."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from espnet_layerskip.evaluation.contenders import LM_FILE, LanguageModel, NeuralLM
from espnet_layerskip.evaluation.entries import SCOPES
from espnet_layerskip.evaluation.settings import SkipSettings, parse_settings
from espnet_layerskip.evaluation.timing import MIN_REPEATS

Number = TypeVar("Number", int, float)


@dataclass(frozen=True)
class Options:
    """What to measure.

    Attributes:
        model: Experiment folder or zip.
        model_file: Checkpoint; None = the default one.
        wav_scp: Table of audio files.
        text: Table of transcripts.
        scopes: Some of `SCOPES`, in their order.
        twins: Other experiments by label.
        lm: An n-gram, or None.
        neural_lm: Of ESPnet's, or None.
        skip: How to skip; None values keep what the model says.
        threads: Numbers of threads.
        batch_sizes: Inputs in a batch.
        seconds: Durations of an input.
        num_inputs: Different inputs of each duration; None = as `make_conditions` says.
        repeats: Timed passes.
        max_wer_increase: In percent of the reference's WER.
        output: JSON file; ``.md`` and ``.png`` go beside it.
    """

    model: str
    model_file: str | None
    wav_scp: Path
    text: Path
    scopes: tuple[str, ...]
    twins: dict[str, str]
    lm: LanguageModel | None
    neural_lm: NeuralLM | None
    skip: SkipSettings
    threads: list[int]
    batch_sizes: list[int]
    seconds: list[float]
    num_inputs: int | None
    repeats: int
    max_wer_increase: float
    output: Path


def read_options(args: argparse.Namespace) -> Options:
    """Check the arguments of ``cli.add_benchmark``.

    Raises:
        ValueError: For a wrong value; says what is needed.
    """
    wanted = args.scope.split(",")
    if unknown := sorted(set(wanted) - set(SCOPES)):
        raise ValueError(f"--scope {','.join(unknown)} is not known: choose of {', '.join(SCOPES)}")
    if args.lexicon is not None and args.ngram_file is None:
        raise ValueError("--lexicon needs --ngram-file: an n-gram over its words")
    for name in ("ngram_file", "lexicon"):
        path = getattr(args, name)
        if path is not None and not path.is_file():
            raise ValueError(f"--{name.replace('_', '-')} {path}: no such file")
    for name in ("config.yaml", LM_FILE) if args.lm_exp is not None else ():
        if not (args.lm_exp / name).is_file():
            raise ValueError(f"--lm-exp {args.lm_exp}: {name} is missing; stages 6 and 7 make it")
    if args.repeats < MIN_REPEATS:
        raise ValueError(f"--repeats {args.repeats}: a median needs at least {MIN_REPEATS}")
    if args.max_wer_increase < 0.0:
        raise ValueError(f"--max-wer-increase {args.max_wer_increase:g}: 0 or more is needed")
    if args.num_inputs is not None and args.num_inputs < 1:
        raise ValueError(f"--num-inputs {args.num_inputs}: at least 1 is needed")
    return Options(
        args.model,
        args.model_file,
        args.wav_scp,
        args.text,
        tuple(scope for scope in SCOPES if scope in wanted),
        _twins(args.twin),
        None if args.ngram_file is None else LanguageModel(args.ngram_file, args.lexicon),
        None if args.lm_exp is None else NeuralLM(args.lm_exp, args.lm_weight),
        parse_settings(args.skip),
        _numbers("--num-threads", args.num_threads, int),
        _numbers("--batch-size", args.batch_size, int),
        _numbers("--seconds", args.seconds, float),
        args.num_inputs,
        args.repeats,
        args.max_wer_increase,
        _output(args.output),
    )


def _numbers(option: str, text: str, kind: Callable[[str], Number]) -> list[Number]:
    """Return the numbers of "1,2", each once, in order."""
    try:
        numbers = sorted({kind(part) for part in text.split(",")})
    except ValueError:
        numbers = []
    if not numbers or not 0 < numbers[0] <= numbers[-1] < float("inf"):
        whole = "whole numbers" if kind is int else "numbers"
        raise ValueError(f"{option} {text}: {whole} above 0 are needed, joined by commas")
    return numbers


def _twins(specs: Sequence[str]) -> dict[str, str]:
    twins: dict[str, str] = {}
    for spec in specs:
        label, _, exp = spec.rpartition("=")
        label = label or Path(exp).name
        if label in twins:
            raise ValueError(f"--twin: two are named {label!r}: give each a LABEL=EXP of its own")
        twins[label] = exp
    return twins


def _output(path: Path) -> Path:
    """Return the path of the JSON file; its folder is made."""
    if path.suffix != ".json":
        raise ValueError(f"--output {path}: a name that ends in .json is needed")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise ValueError(f"--output {path}: its folder cannot be made ({e.strerror})") from e
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise ValueError(f"--output {path} cannot be written: name another file")
    return path
