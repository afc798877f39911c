"""The verb ``benchmark``: speed and accuracy of one model in all its forms, and of its rivals."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from espnet_layerskip.files import write_bytes, write_text
from espnet_layerskip.inference.quiet import start
from espnet_layerskip.method.settings import SkipSettings
from espnet_layerskip.verbs.command_line import make_folder

if TYPE_CHECKING:  # the command line starts without PyTorch
    from espnet_layerskip.evaluation.benchmark import Options

Number = TypeVar("Number", int, float)
LM_FILE = "valid.loss.ave.pth"  # ESPnet's default of --inference_lm


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``benchmark``."""
    parser.description = (
        "Time a model with a gate, interleaved with its rivals, and decode the whole test set with "
        "every one of them: skipping on and off, ESPnet's own classes with the same weights, int8, "
        "stopped at the gate, onnxruntime, and the twins. Three scopes: encoder; model (frontend, "
        "encoder, head); e2e (wave file to text, against ESPnet's Speech2Text with beam 1 and 10). "
        "Writes OUTPUT, and a table (.md) and a figure (.png) beside it. Progress goes to stderr."
    )
    add = parser.add_argument
    add("--model", required=True, metavar="EXPDIR_OR_ZIP", help="experiment with a gate, or zip")
    add("--model-file", metavar="F", help="checkpoint, of the twins too; default: the best one")
    add("--wav-scp", required=True, type=Path, metavar="F", help="test set: lines 'utt_id path'")
    add(
        "--text",
        required=True,
        type=Path,
        metavar="F",
        help="its transcripts: lines 'utt_id words'; utterances of one speaker are joined to long "
        "inputs by utt2spk beside it, else by the names up to their first '-'",
    )
    add("--output", required=True, type=Path, metavar="F.json", help="file to write")
    add("--scope", default="encoder,model,e2e", metavar="S,S", help="default: encoder,model,e2e")
    add(
        "--twin",
        nargs="+",
        action="extend",
        default=[],
        metavar="[LABEL=]EXPDIR",
        help="other experiments at full depth: a shallower one; 'stock', a trained stock twin",
    )
    add("--ngram-file", type=Path, metavar="F", help="ARPA or KenLM file: rows with an n-gram")
    add("--lexicon", type=Path, metavar="F", help="its words; then the n-gram is over words")
    add("--lm-exp", type=Path, metavar="DIR", help="ESPnet's LM: rows of its search with that")
    add("--lm-weight", type=float, default=0.3, metavar="W", help="of that LM (default: 0.3)")
    add(
        "--skip",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="threshold=P, extension=L,R, context=C, gates=K,K; default: as calibrated, else as "
        "configured",
    )
    add("--num-threads", default="1,2", metavar="N,N", help="CPU threads (default: 1,2)")
    add("--batch-size", default="1,8", metavar="N,N", help="inputs in a batch (default: 1,8)")
    add("--seconds", default="3,10,30", metavar="S,S", help="of an input (default: 3,10,30)")
    add("--repeats", type=int, default=5, metavar="N", help="timed passes, at least 5 (default: 5)")
    add(
        "--num-inputs",
        type=int,
        metavar="N",
        help="different inputs of each length; default: of 40 s together, at most 8",
    )
    add(
        "--max-wer-increase",
        type=float,
        default=1.0,
        metavar="PCT",
        help="a row fails if its WER is more than PCT percent (relative) above that of the same "
        "weights and search at full depth (default: 1)",
    )


def run(args: argparse.Namespace) -> int:
    """Benchmark as the arguments of `add_options` say.

    Returns:
        Exit status: 0; 1 if utterances could not be used, which are named.

    Raises:
        ValueError: If the call, the model or the data cannot be used.
    """
    options = read_options(args)
    output = check_output(args.output)
    start()
    from espnet_layerskip.evaluation.benchmark import benchmark
    from espnet_layerskip.evaluation.benchmark_figure import draw_benchmark
    from espnet_layerskip.evaluation.benchmark_report import benchmark_page, summary
    from espnet_layerskip.evaluation.environment import typed
    from espnet_layerskip.evaluation.report.canvas import check_installed

    check_installed()
    command = typed(["espnet-layerskip", *args.argv])
    began = time.monotonic()

    def log(line: str) -> None:
        print(f"[{time.monotonic() - began:4.0f} s] {line}", file=sys.stderr, flush=True)

    with contextlib.redirect_stdout(sys.stderr):  # ESPnet and its imports print
        report = benchmark(options, command, log)
        drawing = draw_benchmark(report, command)
    try:
        write_text(output, json.dumps(report, indent=1, ensure_ascii=False) + "\n")
        write_text(output.with_suffix(".md"), benchmark_page(report))
        write_bytes(output.with_suffix(".png"), drawing.png)
    finally:  # what was measured is not lost with the disk
        print(summary(report))
    for suffix in (".json", ".md", ".png"):
        print(output.with_suffix(suffix))
    return 1 if report["environment"]["data"].get("refused") else 0


def read_options(args: argparse.Namespace) -> Options:
    """Check the arguments of `add_options`.

    Raises:
        ValueError: For a wrong value; says what is needed.
    """
    from espnet_layerskip.evaluation.benchmark import Options
    from espnet_layerskip.evaluation.measure import SCOPES
    from espnet_layerskip.evaluation.timing import MIN_REPEATS

    wanted = args.scope.split(",")
    if unknown := sorted(set(wanted) - set(SCOPES)):
        raise ValueError(f"--scope {','.join(unknown)} is not known: choose of {', '.join(SCOPES)}")
    if args.lexicon is not None and args.ngram_file is None:
        raise ValueError("--lexicon needs --ngram-file: an n-gram over its words")
    ngram = {n: getattr(args, n) for n in ("ngram_file", "lexicon") if getattr(args, n) is not None}
    for name, path in ngram.items():
        if not path.is_file():
            raise ValueError(f"--{name.replace('_', '-')} {path}: no such file")
    lm = {}
    if args.lm_exp is not None:
        for name in ("config.yaml", LM_FILE):
            if not (args.lm_exp / name).is_file():
                raise ValueError(
                    f"--lm-exp {args.lm_exp}: {name} is missing; stages 6 and 7 make it"
                )
        files = {"lm_train_config": args.lm_exp / "config.yaml", "lm_file": args.lm_exp / LM_FILE}
        lm = {n: str(path) for n, path in files.items()} | {"lm_weight": args.lm_weight}
    if args.repeats < MIN_REPEATS:
        raise ValueError(f"--repeats {args.repeats}: a median needs at least {MIN_REPEATS}")
    if args.max_wer_increase < 0.0:
        raise ValueError(f"--max-wer-increase {args.max_wer_increase:g}: 0 or more is needed")
    if args.num_inputs is not None and args.num_inputs < 1:
        raise ValueError(f"--num-inputs {args.num_inputs}: at least 1 is needed")
    same = ("model", "model_file", "wav_scp", "text", "num_inputs", "repeats", "max_wer_increase")
    return Options(
        **{name: getattr(args, name) for name in same},
        scopes=[scope for scope in SCOPES if scope in wanted],
        twins=_twins(args.twin),
        ngram=ngram,
        lm=lm,
        skip=SkipSettings.from_items(args.skip),
        threads=_numbers("--num-threads", args.num_threads, int),
        batch_sizes=_numbers("--batch-size", args.batch_size, int),
        seconds=_numbers("--seconds", args.seconds, float),
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
        label, _, exp = ("", "", spec) if Path(spec).exists() else spec.rpartition("=")
        label = label or Path(exp).name
        if label in twins:
            raise ValueError(f"--twin: two are named {label!r}: give each a LABEL=EXP of its own")
        twins[label] = exp
    return twins


def check_output(path: Path) -> Path:
    """Return the path of the JSON file; its folder is made.

    Raises:
        ValueError: If it cannot be written, or what goes beside it.
    """
    if path.suffix != ".json":
        raise ValueError(f"--output {path}: a name that ends in .json is needed")
    beside = [path.with_suffix(suffix).name for suffix in (".md", ".png")]
    make_folder("--output", path.parent, path.name, *beside)
    for name in beside if not path.exists() else ():
        if (path.parent / name).exists():
            raise ValueError(f"--output {path}: {name} beside it is of something else: rename one")
    return path
